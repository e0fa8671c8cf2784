"""plan: what it says, its exit codes, and what it refuses."""

import json
import subprocess
import sys

import pytest
import yaml
from safetensors.torch import load_file

from tests.cli.conftest import ROOT
from vlm_crash.cli import main
from vlm_crash.cli.plan import OPTIONS, build_parser
from vlm_crash.cli.plan_configs import fit_options, merge
from vlm_crash.cli.plan_settings import WORDS, read_setting
from vlm_crash.parallel.sharding import SHARDING

BASE = ROOT / "vlm_crash/demo/base"


def read(*configs, gpus=8, **options):
    merged = {}
    for config in configs:
        merge(merged, config)
    return read_setting({**merged, **options}, gpus, None, None)


@pytest.fixture
def figures(tmp_path, capsys):
    """Exit code and figures of a plan."""

    def run(*args):
        code = main(["plan", *map(str, args), "--json", str(tmp_path / "new/plan.json")])
        return code, json.loads((tmp_path / "new/plan.json").read_text()), capsys.readouterr().out

    return run


def test_titan_fits_eight_cards_of_24_gb(figures):
    code, found, text = figures("--config", "titan.yaml", "--gpus", 8)
    assert code == 0 and found["fits"] and found["left_gib"] >= 2
    assert found["gpu_memory_gib"] == 23.6 and found["parts_gib"]["context and NCCL"] == 1.2
    assert sum(found["parts_gib"].values()) == pytest.approx(found["peak_gib"])
    assert found["peak_gib"] == pytest.approx(found["moments_gib"][found["peak_moment"]])
    assert round(sum(found["parameters"].values()) / 1e9, 1) == 8.1
    config = yaml.safe_load((ROOT / "configs/titan.yaml").read_text())
    assert f": {config['data']['num_frames']} frames" in text and "It fits" in text


@pytest.mark.parametrize(("frames", "code"), [(32, 0), (64, 1)])
def test_a_plan_of_8b_takes_no_gigabytes_and_makes_no_weight(frames, code):
    """The whole command in a process of its own, which may have 4 GB; torch, which could make one, is not loaded.

    One that fits, and one that lists what would.
    """
    program = (
        "import re, resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_AS, (4 * 10**9, 4 * 10**9))\n"
        "from vlm_crash.cli import main\n"
        f"code = main('plan --config titan.yaml --model.path 8B --gpus 8 --data.num_frames {frames}'.split())\n"
        # Not ru_maxrss, which a process takes over from the one that started it.
        "peak = re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1]\n"
        "print(code, peak, *sorted({'torch', 'transformers', 'lightning'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    found, peak, *loaded = done.stdout.splitlines()[-1].split()
    assert int(found) == code and not loaded
    assert 0 < int(peak) < 200 * 1024, "KiB; 8 billion weights would be 32 million"
    assert "8B (8.08 billion weights)" in done.stdout


def test_what_does_not_fit_ends_with_1_and_what_would(figures):
    code, found, text = figures("--config", "titan.yaml", "--gpus", 8, "--data.num_frames", 64)
    assert code == 1 and not found["fits"] and "It does not fit" in text
    rows = found["alternatives"]
    assert len(rows) == 4 and all(row["left_gib"] >= 0 for row in rows)
    assert [row["work"] for row in rows] == sorted(row["work"] for row in rows)
    for row in rows:
        assert f"{row['peak_gib']:.2f} GiB" in text and row["changes"][-1] in text


def test_it_says_so_where_nothing_helps(figures):
    code, found, text = figures("--config", "titan.yaml", "--gpus", 1, "--gpu_memory", 2)
    assert code == 1 and found["alternatives"] == []
    assert "Nothing that can be set makes it fit" in text and "The least that settings reach is 4.50 GiB" in text


WAYS = {
    "lora": ["--model.lora.rank", 16],
    "freeze": ["--model.freeze", "[vision]"],
    "num_frames": ["--data.num_frames", 48],
    "cpu_offload": ["--trainer.strategy.cpu_offload", "true"],
}


@pytest.mark.parametrize(
    ("gpus", "ways"), [(8, WAYS), (1, {"lora": ["--model.lora.rank", 16, "--trainer.strategy", "auto"]})], ids=str
)
def test_alternatives_are_settings_that_do_what_they_say(figures, gpus, ways):
    run = ["--config", "titan.yaml", "--gpus", gpus]
    rows = figures(*run, "--data.num_frames", 64)[1]["alternatives"]
    for word, options in ways.items():
        row = next(row for row in rows if word in " ".join(row["changes"]))
        assert all(str(option) in " ".join(row["changes"]) for option in options)
        frames = [] if word == "num_frames" else ["--data.num_frames", 64]
        code, again, _ = figures(*run, *frames, *options)
        assert code == 0 and again["peak_gib"] == pytest.approx(row["peak_gib"])
        assert again["host_machine_gib"] == pytest.approx(row["host_machine_gib"])


def test_offload_is_weighed_against_the_machines_memory(figures, monkeypatch):
    """16 bytes a weight for all of a machine's processes, and 4 for the model folder; beside what is here."""
    offload = ["--config", "titan.yaml", "--gpus", 8, "--trainer.strategy.cpu_offload", "true"]
    for nodes, gib, is_enough in ((1, 160, True), (1, 150, False), (2, 100, True)):
        monkeypatch.setattr("vlm_crash.doctor.machine.memory", lambda gib=gib: (gib * 2**30, 0))
        _, found, text = figures(*offload, "--trainer.num_nodes", nodes)
        weights = sum(found["parameters"].values())
        assert found["host_machine_gib"] == pytest.approx((16 / nodes + 4) * weights / 2**30)
        needed = f"{found['host_machine_gib']:.1f} GiB for the {8 // nodes} of a machine"
        assert needed in text and f"this machine has {gib:.1f} GiB" in text
        assert ("which is too little" in text) != is_enough


def test_the_demo_fits_one_card(figures):
    code, found, _ = figures("--config", "demo.yaml", "--model.path", BASE, "--gpus", 1)
    assert code == 0 and found["left_gib"] > 20
    tensors = load_file(BASE / "model.safetensors")
    assert sum(found["parameters"].values()) == sum(tensor.numel() for tensor in tensors.values())


def test_a_saved_config_of_a_run_can_be_planned(tmp_path, figures, capsys):
    with pytest.raises(SystemExit):
        from vlm_crash.cli.lightning_commands import run

        run("fit", ["--config", str(ROOT / "configs/titan.yaml"), "--model.path", str(BASE), "--print_config"])
    (tmp_path / "run.yaml").write_text(capsys.readouterr().out)
    _, whole, _ = figures("--config", tmp_path / "run.yaml", "--gpus", 2)
    _, short, _ = figures("--config", "titan.yaml", "--model.path", BASE, "--gpus", 2)
    assert whole["parts_gib"] == short["parts_gib"]


def test_configs_and_flags_come_to_the_same(tmp_path):
    parser = build_parser()
    assert all(any(f"--{name}" in action.option_strings for action in parser._actions) for name in OPTIONS)
    merged = {"trainer": {"strategy": {"class_path": "a.FSDPStrategy", "init_args": {"cpu_offload": True}}}}
    merge(merged, {"trainer": {"strategy": {"class_path": "b.Other"}}})
    assert merged["trainer"]["strategy"] == {"class_path": "b.Other"}


def test_words_are_the_strategys_and_options_are_fits():
    assert {long: word for word, long in SHARDING.items()} == WORDS
    known = fit_options()
    strategy_options = [name for name in OPTIONS if not name.startswith(("trainer.strategy.", "model.lora"))]
    assert set(strategy_options) <= set(known)


def test_settings_of_a_config():
    fsdp = {"class_path": "vlm_crash.parallel.FSDPStrategy", "init_args": {"sharding_strategy": "SHARD_GRAD_OP"}}
    trainer = {"precision": "16-mixed", "strategy": fsdp, "num_nodes": 2, "accumulate_grad_batches": 3}
    model = {"path": "2B", "activation_checkpointing": True, "freeze": ["vision"], "attention": "auto"}
    run = read({"trainer": trainer, "model": model, "data": {"batch_size": 2, "num_frames": 16}})
    how = run.setting
    assert (how.word, how.sharers, how.compute_width, how.reduce_width, how.accumulate) == ("zero2", 8, 2, 4, 3)
    assert (how.num_frames, how.batch_size, how.is_padded, how.kernel) == (16, 2, True, "math")
    assert how.checkpointed == {"vision", "language"} and how.freeze == {"vision"}
    assert any("auto" in note for note in run.notes)
    fsdp["init_args"] = {"sharding_strategy": "hybrid", "reduce_dtype": "float16", "cpu_offload": True}
    how = read({"trainer": trainer, "model": model}).setting
    assert (how.word, how.sharers, how.reduce_width, how.cpu_offload, how.num_frames) == ("hybrid", 4, 2, True, 32)
    adapters = {"rank": 8, "targets": ["attention"], "projector": False}
    how = read({"trainer": {"precision": "16-mixed"}, "model": {"lora": adapters}}, gpus=1).setting
    assert (how.word, how.lora_rank, how.base_width, how.lora_projector) == ("plain", 8, 2, False)
    assert {"q_proj", "o_proj"} <= how.lora_targets and "up_proj" not in how.lora_targets


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--config titann.yaml", "did you mean titan.yaml?"),
        ("--config absent/mine.yaml", "there is no config absent/mine.yaml"),
        ("--gpus 0", "gpus=0 cannot be shared by 1 machine(s); set --gpus to 1 or more"),
        ("--gpus 3 --trainer.num_nodes 2", "gpus=3 cannot be shared by 2 machine(s)"),
        ("--gpus many", "--gpus cannot be that: expected int or null, got many"),
        ("--gpu_memory 0", "gpu_memory=0.0 is no memory in GiB"),
        ("--reserve -1", "reserve=-1.0 is no memory in GiB"),
        ("--gpu_ram 24", "there is no option 'gpu_ram'"),
        ("--model.lr_vision 1", "there is no option 'model.lr_vision'"),
        ("--model.path nowhere", "model.path='nowhere' is no model folder"),
        ("--model.vision_chunk 0", "model.vision_chunk=0 is below 1"),
        ("--model.attention quick", "attention='quick' is not one of"),
        ("--model.freeze [tail]", "model.freeze=['tail'] are no towers"),
        ("--model.freeze [vision,projector,language]", "leaves nothing to train"),
        ("--model.activation_checkpointing [projector]", "is no tower with layers"),
        ("--data.num_frames 0", "data.num_frames=0 is below 1"),
        ("--data.batch_size 0", "data.batch_size=0 is below 1"),
        ("--data.batching sorted", "batching='sorted' is not one of"),
        ("--data.pack_tokens 4000", "has no effect with batching='padded'"),
        ("--data.batching packed --data.pack_tokens 40", "data.pack_tokens=40 is below 1668"),
        ("--text_tokens 5 --label_tokens 9", "text_tokens=5 is below 9"),
        ("--trainer.precision 17", "precision='17' cannot be planned"),
        ("--trainer.strategy deepspeed", "trainer.strategy='deepspeed' cannot be planned"),
        ("--trainer.strategy.sharding_strategy zero4", "sharding_strategy='zero4' is not one of"),
        ("--trainer.strategy.sharding_strategy hybrid", "this run has one machine"),
        ("--trainer.strategy.reduce_dtype int8", "reduce_dtype='int8' is not one of"),
        ("--model.lora.rank 0", "model.lora.rank=0 is below 1"),
        ("--model.lora.targets [tail]", "lora.targets=['tail'] are no layers"),
    ],
)
def test_what_cannot_be(wrong, options, message):
    args = options.split()
    assert message in wrong("plan", *([] if "--config" in args else ["--config", "titan.yaml"]), *args)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: [\n", "line 2, column 1: not YAML"),
        ("- a\n", "line 1: a list, not options"),
        (
            "model:\n  vision_chunks: 8\n",
            "there is no option 'model.vision_chunks' in fit; did you mean model.vision_chunk?",
        ),
        ("modell:\n  path: x\n", "there is no option 'modell' in fit"),
        ("trainer:\n  strategy: ddp\n", "is an option of a strategy by class"),
    ],
)
def test_configs_that_cannot_be(wrong, tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert message in wrong("plan", "--config", path, "--trainer.strategy.cpu_offload", "true")


def test_a_broken_model_folder(wrong, tmp_path):
    (tmp_path / "config.json").write_text("{")
    assert "is not JSON" in wrong("plan", "--model.path", tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert "model_type='llama'" in wrong("plan", "--model.path", tmp_path)


def test_packs_are_planned_as_whole_clips(figures):
    one = figures("--config", "titan.yaml")[1]
    code, packed, text = figures("--config", "titan.yaml", "--data.batching", "packed", "--data.pack_tokens", 4096)
    assert code == 1 and "packs of 4,096 tokens are planned as 3 whole clips" in text
    assert packed["peak_gib"] > one["peak_gib"] + 3
    assert "one clip a batch (--data.batching padded, no --data.pack_tokens, --data.batch_size 1" in text
    by_clips = figures("--config", "titan.yaml", "--data.batch_size", 3)[1]
    assert packed["peak_gib"] <= by_clips["peak_gib"], "padding needs a mask"
