"""CrashAnalyzer: the answers of `predict`, a record for every clip, one message for wrong arguments."""

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from vlm_crash import CrashAnalyzer
from vlm_crash.cli import main
from vlm_crash.video import guarded

ROOT = Path(__file__).parents[1]
BASE = ROOT / "vlm_crash/demo/base"


@pytest.fixture(scope="module")
def clips(demo_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three clips that can be read, and two that cannot: cut off in the middle, and absent."""
    folder = tmp_path_factory.mktemp("clips")
    whole = demo_clips / "crash/1.mp4"
    (folder / "cut.mp4").write_bytes(whole.read_bytes()[:900])
    readable = [demo_clips / "crash/2.mp4", demo_clips / "nearmiss/1.mp4"]
    return [whole, folder / "cut.mp4", *readable, folder / "absent.mp4"]


@pytest.fixture(scope="module")
def analyzer() -> CrashAnalyzer:
    return CrashAnalyzer.from_pretrained(BASE, device="cpu")


@pytest.mark.parametrize("decoding", [None, "free"])
def test_the_answers_are_those_of_predict(clips, tmp_path, decoding):
    options = [] if decoding is None else ["--model.decoding", decoding]
    there = [str(clip) for clip in clips if clip.exists()]
    args = ["--model.path", str(BASE), "--data.clips", json.dumps(there), "--data.batch_size", "3"]
    args += ["--data.num_workers", "0", "--trainer.accelerator", "cpu", "--output_dir", str(tmp_path / "p"), *options]
    assert main(["predict", *args]) == 0
    lines = [json.loads(line) for line in (tmp_path / "p/predictions.jsonl").read_text().splitlines()]
    want = {line["path"]: line for line in lines}
    found = CrashAnalyzer.from_pretrained(BASE, device="cpu", decoding=decoding)(there, batch_size=3)
    assert [record.path for record in found] == there and len(want) == len(there)
    for record in found:
        got, line = record.to_json_dict(), want[record.path]
        for key in set(got) - {"seconds", "provenance"}:
            assert got[key] == line[key], key
    assert [record.status for record in found] == ["ok", "failed", "ok", "ok"]
    assert all(len(record.fields) in (9, 19) for record in found if record.status == "ok")


def test_a_record_for_every_clip_in_any_batch(analyzer, clips):
    one, several = analyzer(clips), analyzer([str(clip) for clip in clips], batch_size=3)
    assert [record.video for record in one] == [clip.name for clip in clips]
    assert [record.status for record in one] == ["ok", "failed", "ok", "ok", "failed"]
    assert [record.response for record in one] == [record.response for record in several]
    for alone, beside in zip(one, several, strict=True):
        assert alone.event_probability == pytest.approx(beside.event_probability, abs=1e-5)
    assert one[1].error and one[4].error and not one[1].response
    single = analyzer(clips[0])
    assert (single.response, single.event_probability) == (one[0].response, one[0].event_probability)
    assert analyzer([]) == []


def test_a_stream_takes_no_more_than_it_needs(analyzer, clips):
    taken: list[Path] = []

    def paths() -> Any:
        for number in range(1000):
            taken.append(clips[1 if number % 3 else 0])
            yield taken[-1]

    stream = analyzer.stream(paths(), batch_size=2)
    assert taken == []
    assert [next(stream).status for _ in range(4)] == ["ok", "failed", "failed", "ok"]
    assert len(taken) == 6, "the batch that is answered, and the one that is read beside it"
    stream.close()


def test_frames_and_dtype_act(analyzer, clips):
    other = CrashAnalyzer.from_pretrained(BASE, device="cpu", num_frames=2, max_new_tokens=3, dtype="bfloat16")
    assert other.recipe.sampling.num_frames == 2 and analyzer.recipe.sampling.num_frames == 8
    assert next(other.module.parameters()).dtype == torch.bfloat16
    assert other(clips[0]).status == "ok" and analyzer.device.type == "cpu"


def test_a_remembered_prompt_and_rule_can_be_left(clips, tmp_path):
    folder = shutil.copytree(BASE, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["vlm_crash"] |= {"prompt": "dataset", "frame_rule": "card"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"prompt='dataset' takes .*; set prompt='full' or prompt='short'"):
        CrashAnalyzer.from_pretrained(folder, device="cpu")
    other = CrashAnalyzer.from_pretrained(folder, device="cpu", prompt="short", frame_rule="event")
    assert (other.recipe.prompt, other.recipe.sampling.rule, other.recipe.sampling.num_frames) == ("short", "event", 8)
    assert other(clips[0]).status == "ok"


@pytest.mark.parametrize(
    ("clips", "options", "message"),
    [
        (7, {}, "clips=7 are no paths"),
        (b"a.mp4", {}, "are no paths"),
        (["a.mp4", None], {}, "None is no path of a clip"),
        ([BASE], {}, "is a folder; give its clips"),
        (["a.mp4"], {"batch_size": 0}, "batch_size=0 is no number above 0"),
        (["a.mp4"], {"batch_size": "2"}, "batch_size='2' is no number above 0"),
    ],
)
def test_wrong_clips(analyzer, clips, options, message):
    with pytest.raises(ValueError, match=message):
        analyzer(clips, **options)


def test_a_path_is_no_stream(analyzer):
    with pytest.raises(ValueError, match="is one path"):
        analyzer.stream("a.mp4")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folder": "nowhere"}, "'nowhere' is no model folder"),
        ({"device": "gpu9"}, "device='gpu9' is no device"),
        ({"device": "cuda:99"}, "device='cuda:99': there are"),
        ({"dtype": "int8"}, "dtype='int8' is not one of"),
        ({"num_frames": 0}, "num_frames=0 is below 1"),
        ({"attention": "quick"}, "attention"),
    ],
)
def test_wrong_settings(options, message):
    with pytest.raises(ValueError, match=message):
        CrashAnalyzer.from_pretrained(options.pop("folder", BASE), **{"device": "cpu", **options})


@pytest.mark.gpu
def test_a_gpu_gives_the_same_in_fp16(analyzer, clips):
    on_gpu = CrashAnalyzer.from_pretrained(BASE, device="cuda")
    assert next(on_gpu.module.parameters()).dtype == torch.float16
    for cpu, gpu in zip(analyzer(clips), on_gpu(clips, batch_size=2), strict=True):
        assert (cpu.status, cpu.response) == (gpu.status, gpu.response)
        assert cpu.event_probability == pytest.approx(gpu.event_probability, abs=0.02)


def test_one_reader_process_for_all_calls(analyzer, clips):
    def reader() -> int | None:
        return analyzer._reading_thread().submit(lambda: guarded._own_process().pid).result()

    analyzer(clips[0])
    first = reader()
    analyzer(clips[2])
    assert first is not None and reader() == first
    copied = copy.copy(analyzer)
    assert copied(clips[0]).response == analyzer(clips[0]).response
    assert copied._reading_thread() is not analyzer._reading_thread()


def test_the_name_costs_nothing_until_it_is_used():
    code = "import sys, vlm_crash; assert 'CrashAnalyzer' in vlm_crash.__all__; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    with pytest.raises(AttributeError, match="no attribute 'CrashAnalyser'"):
        import vlm_crash

        vlm_crash.CrashAnalyser  # noqa: B018


def test_the_notebook_runs(monkeypatch, capsys):
    """Its cells, one after the other, as a kernel runs them."""
    cells = json.loads((ROOT / "notebooks/analyze_clips.ipynb").read_text(encoding="utf-8"))["cells"]
    codes = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] for cell in cells if cell["cell_type"] == "code"), "no outputs in the repository"
    scope: dict[str, Any] = {"__name__": "notebook"}
    for number, code in enumerate(codes):
        exec(compile(code, f"cell {number}", "exec"), scope)
    said = capsys.readouterr().out
    assert [record.status for record in scope["records"]] == ["ok", "ok", "failed"]
    assert "4 clips answered" in said and "not_there.mp4 failed" in said
