"""For the whole suite: what is long comes first, examples are the same each time and may take long on a busy machine,
tests marked `gpu` are skipped where there is no CUDA device; tests leave no choices behind."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

#: Files that take longest, in seconds about: a worker of pytest-xdist that begins one last keeps the others waiting.
LONG = {
    "parallel/test_resume.py": 80, "parallel/test_hosts.py": 75, "parallel/test_numbers.py": 65,
    "cli/test_demo.py": 50, "cli/test_predict_launchers.py": 35, "cli/test_interrupt.py": 30,
    "cli/test_predict_resume.py": 30, "parallel/test_command_line.py": 30, "parallel/test_left_out.py": 30,
    "evaluation/test_report_browser.py": 25, "cli/test_scan.py": 25, "cli/test_real_clips.py": 25,
    "cli/test_decoding.py": 25, "parallel/test_sentinel.py": 20, "cli/test_predict.py": 20, "cli/test_convert.py": 20,
    "video/test_shared_clips.py": 20, "tools/test_bench_predict.py": 20, "tools/test_check_parity.py": 18,
    "models/test_checkpoints.py": 17, "parallel/test_lora.py": 15, "tools/test_bench_train.py": 15,
    "tools/test_bench_load.py": 15, "cli/test_slurm_script.py": 14, "tools/test_bench_grammar.py": 14,
    "cli/test_fit.py": 13, "cli/test_lora.py": 12, "doctor/test_examination.py": 12, "cli/test_checkpoints.py": 12,
    "metrics/test_text_similarity.py": 12, "demo/test_clips.py": 12, "data/test_clip_lists.py": 10,
    "parallel/test_traps.py": 10, "cli/test_odd_clips.py": 10,
}  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    if absent := [name for name in LONG if not (Path(__file__).parent / name).is_file()]:
        raise pytest.UsageError(f"{__file__}: LONG names {', '.join(absent)}, which are not there")
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False  # pytest-xdist's own order: files of many tests, though short, first


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    seconds = {here / name: number for name, number in LONG.items()}
    items.sort(key=lambda item: -seconds.get(item.path, 0))
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(autouse=True)
def attention_as_it_was() -> Iterator[None]:
    """The choice of attention kernels holds for a process: it ends with the test that made it."""
    kinds = ("flash", "mem_efficient", "math", "cudnn")
    backends = sys.modules["torch"].backends.cuda if "torch" in sys.modules else None
    before = {kind: getattr(backends, f"{kind}_sdp_enabled")() for kind in kinds} if backends else {}
    yield
    for kind, enabled in before.items():
        getattr(backends, f"enable_{kind}_sdp")(enabled)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny random InternVL, of two layers a tower, and a tokenizer that knows the form."""
    import torch
    from transformers import InternVLConfig

    from vlm_crash.demo import base_model
    from vlm_crash.demo.scene import sample_scene
    from vlm_crash.schema.fields import load_schema
    from vlm_crash.schema.records import Annotation
    from vlm_crash.schema.response import render

    torch.manual_seed(0)
    schema = load_schema()
    scenes = [sample_scene(seed) for seed in range(200)]
    folder = tmp_path_factory.mktemp("tiny_model")
    texts = [render(schema, Annotation.of(schema, scene.event, scene.values)) for scene in scenes]
    plain = base_model.tiny_config

    def flat(tokenizer: Any) -> Any:
        config = plain(tokenizer).to_dict()
        config["vision_config"]["num_hidden_layers"] = config["text_config"]["num_hidden_layers"] = 2
        del config["text_config"]["layer_types"]  # one a layer
        return InternVLConfig.from_dict(config)

    with mock.patch.object(base_model, "tiny_config", flat):
        base_model.write_empty_model(folder, texts)
    return folder


@pytest.fixture(scope="session")
def demo_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty rendered clips and their two CSVs, in the old scripts' form."""
    from vlm_crash.demo.clips import write_dataset

    folder = tmp_path_factory.mktemp("clips")
    write_dataset(folder, num_clips=20, seed=5, workers=1)
    return folder


@pytest.fixture(scope="session")
def prepared(demo_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset that `prepare` makes of the rendered clips."""
    from vlm_crash.cli import main

    folder = tmp_path_factory.mktemp("prepared")
    args = ["prepare", "--out", str(folder), "--fractions", "[0.5,0.2,0.3]"]
    for event in ("crash", "nearmiss"):
        args += [f"--{event}_csv", str(demo_clips / f"AV_{event}_modified_r.csv")]
        args += [f"--{event}_dir", str(demo_clips / event)]
    assert main(args) == 0
    return folder


@pytest.fixture(scope="session")
def parity() -> Path:
    """What the original code computes with tiny checkpoints (see parity/README.md)."""
    return Path(__file__).parent / "parity"
