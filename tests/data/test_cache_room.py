"""What a cache needs is said before a run starts; and a run sees the same with and without it."""

import logging
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from lightning import Trainer

from vlm_crash.data.cache_room import check_room, check_room_once
from vlm_crash.data.datamodule import CrashDataModule
from vlm_crash.data.dataset import ModelInputs, SampleRecipe
from vlm_crash.models.tokenizers import load_tokenizer
from vlm_crash.video import cache_folder
from vlm_crash.video.frame_cache import CacheSettings


@pytest.fixture(scope="module")
def inputs(tiny_model: Path) -> ModelInputs:
    return ModelInputs(load_tokenizer(tiny_model), 16, 32, prompt="short", system_message="")


def connected(inputs: ModelInputs, stage: str, **options) -> CrashDataModule:
    data = CrashDataModule(**{"num_workers": 0, "num_frames": 4, "batch_size": 4, **options})
    data.connect(inputs)
    data.setup(stage)
    return data


def pixels(loader) -> torch.Tensor:
    return torch.cat([batch.pixel_values_N3HW for batch in loader])


@pytest.mark.parametrize("format", ["lz4", "raw", "webp"])
def test_every_stage_sees_the_same_with_and_without(inputs, prepared, tmp_path, format):
    for stage, loader in (("fit", "train"), ("fit", "val"), ("test", "test"), ("predict", "predict")):
        plain = pixels(getattr(connected(inputs, stage, folder=prepared), f"{loader}_dataloader")())
        options = {"folder": prepared, "cache": CacheSettings(tmp_path, format=format)}
        for _ in range(2):
            data = connected(inputs, stage, **options)
            assert torch.equal(pixels(getattr(data, f"{loader}_dataloader")()), plain)
    assert len([path for path in (tmp_path / "frames").rglob("*") if path.is_file()]) == 20


def test_the_need_is_said(inputs, prepared, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        connected(inputs, "fit", folder=prepared, cache=CacheSettings(tmp_path))
    (line,) = (text for text in caplog.messages if text.startswith("frame cache"))
    assert line.startswith("frame cache: 14 clips x 4 frames x 32 x 32 take about ")
    raw = 14 * 4 * 32 * 32 * 3 / 2**30
    assert f"raw {raw:.3g}, lz4 " in line and "max_gib is 100" in line


def test_a_quarantined_clip_is_neither_opened_nor_counted(inputs, prepared, tmp_path, caplog, monkeypatch):
    data = connected(inputs, "predict", folder=prepared, split="train", cache=CacheSettings(tmp_path))
    samples = data.samples["predict"]
    marked = [replace(sample, quarantined="it hangs") for sample in samples[1:]] + [samples[0]]
    opened, plain = [], SampleRecipe.decoded

    def decoded(recipe, path, to_keep):
        opened.append(path)
        return plain(recipe, path, to_keep)

    monkeypatch.setattr(SampleRecipe, "decoded", decoded)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        check_room(data.recipe, {"predict": marked})
        check_room(data.recipe, {"predict": marked[:-1]})
    assert opened == [samples[0].path]
    (line,) = caplog.messages
    assert line.startswith("frame cache: 1 clips x 4 frames")


def test_what_cannot_fit_is_refused(inputs, prepared, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"no room: 14 clips x 4 frames.*as raw.*max_gib is 0\.0001\. Set --data"):
        connected(inputs, "fit", folder=prepared, cache=CacheSettings(tmp_path, max_gib=0.0001, format="raw"))
    usage = shutil.disk_usage(tmp_path)._replace(free=cache_folder.RESERVE + 1000)
    monkeypatch.setattr(cache_folder.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ValueError, match=r"no room: .*9.31e-07 GiB of the disk of "):
        connected(inputs, "fit", folder=prepared, cache=CacheSettings(tmp_path / "other"))


def test_workers_share_a_cache(inputs, prepared, tmp_path):
    plain = pixels(connected(inputs, "fit", folder=prepared).train_dataloader())
    data = connected(inputs, "fit", folder=prepared, cache=CacheSettings(tmp_path), num_workers=2, batch_size=1)
    loader = data.train_dataloader()
    assert torch.equal(pixels(loader), plain)
    assert torch.equal(pixels(loader), plain)


def test_room_is_asked_for_where_clips_are_left(inputs, prepared, tmp_path):
    data = connected(inputs, "predict", folder=prepared, cache=CacheSettings(tmp_path, max_gib=0.00001, format="raw"))
    data.choose_left = lambda samples: np.arange(0)
    assert len(list(data.predict_dataloader())) == 0
    data.choose_left = lambda samples: np.arange(1)
    with pytest.raises(ValueError, match="the frame cache has no room: "):
        data.predict_dataloader()


@pytest.mark.parametrize("others_fit", [True, False])
def test_one_process_of_a_machine_asks_and_all_hear(inputs, prepared, tmp_path, caplog, others_fit):
    """The strategy is that of a process whose neighbours have answered."""
    settings = CacheSettings(tmp_path, max_gib=0.00001, format="raw")
    data = connected(inputs, "predict", folder=prepared, cache=settings)
    place = {"world_size": 2, "strategy": SimpleNamespace(reduce_boolean_decision=lambda fits: fits and others_fit)}
    second = cast(Trainer, SimpleNamespace(local_rank=1, **place))
    with nullcontext() if others_fit else pytest.raises(ValueError, match="no room; another process"):
        check_room_once(second, data.recipe, data.samples)
    first = cast(Trainer, SimpleNamespace(local_rank=0, **place))
    with pytest.raises(ValueError, match="the frame cache has no room: "):
        check_room_once(first, data.recipe, data.samples)
