"""The run id follows whatever changes the frames, and a package that is missing is written down as missing."""

from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from lightning import Trainer

from vlm_crash.callbacks import run_record
from vlm_crash.callbacks.run_record import describe_run, differences
from vlm_crash.data.datamodule import CrashDataModule
from vlm_crash.data.frame_options import FrameOptions
from vlm_crash.lightning_module import CrashVLM
from vlm_crash.video.frame_cache import CacheSettings


@pytest.fixture(scope="module")
def module(tiny_model: Path) -> CrashVLM:
    return CrashVLM(tiny_model, embedder=None)


@pytest.fixture
def described(module: CrashVLM, monkeypatch: pytest.MonkeyPatch):
    """run.json of a run with these settings of the data."""
    plain = run_record.version
    monkeypatch.setattr(run_record, "version", lambda name: "9.9" if name == "torchcodec" else plain(name))

    def describe(reader: str = "auto", **options: Any) -> dict[str, Any]:
        data = CrashDataModule(num_frames=4, **options)
        data.connect(module.inputs)
        assert data.recipe is not None
        data.recipe = replace(data.recipe, reader=reader)  # also one that is not installed here
        trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
        trainer.datamodule = data  # type: ignore[attr-defined]
        return describe_run(trainer, module)

    return describe


def test_the_run_id_follows_what_decides_the_frames(described, tmp_path):
    settings: list[dict[str, Any]] = [
        {},
        {"frame_rule": "card"},
        {"frame_rule": "fps", "frames": FrameOptions(fps=1)},
        {"frame_rule": "fps", "frames": FrameOptions(fps=2)},
        {"frames": FrameOptions(start_s=0.5)},
        {"frames": FrameOptions(end_s=0.5)},
        {"reader": "pyav"},
        {"reader": "torchcodec"},
        {"cache": CacheSettings(tmp_path, format="jpeg")},
    ]
    plain, *others = runs = [described(**options) for options in settings]
    assert len({run["run_id"] for run in runs}) == len(settings)
    assert all(differences(plain, run) for run in others)
    assert "sampling.cache_format: none -> jpeg" in differences(plain, runs[-1])
    assert "versions.torchcodec: none -> 9.9" in differences(plain, runs[-2])
    assert all("told_sampling" not in run["sampling"] for run in runs)  # as runs of before it was told
    told = described(frame_rule="event")
    assert told["sampling"]["told_sampling"] == "event"
    assert "sampling.told_sampling: none -> event" in differences(plain, told)
    # The same pixels: the same run.
    assert described(cache=CacheSettings(tmp_path, format="zstd"))["run_id"] == plain["run_id"]


def test_a_package_that_is_not_installed(described, monkeypatch):
    there = described()
    plain = run_record.version

    def without(name: str) -> str:
        if name == "decord":
            raise PackageNotFoundError(name)
        return plain(name)

    monkeypatch.setattr(run_record, "version", without)
    found = described()
    assert found["versions"]["decord"] is None
    assert found["run_id"] != there["run_id"]
