"""The shipped base model goes on seeing the very ids it was trained with, whatever else the prompts learn to do."""

import json
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from vlm_crash.cli.demo import BASE_MODEL
from vlm_crash.data.datamodule import CrashDataModule
from vlm_crash.lightning_module import CrashVLM
from vlm_crash.schema.records import VideoSample
from vlm_crash.video.container import ClipInfo
from vlm_crash.video.frame_sampling import FrameSampling
from vlm_crash.video.reader import Frames

#: Run lengths [id, count] of the ids that it saw when it was trained, by prompt.
EXPECTED: dict[str, list[list[int]]] = json.loads(Path(__file__).with_name("base_ids.json").read_text())
QUESTION = "<image>\nWhat happened on **this** road?\n- Weather: say so"
CASES = {
    "short": {},
    "short_answered": {},
    "full": {"prompt": "full"},
    "full_told": {"prompt": "full", "tell_event": True},
    "dataset_answered": {"prompt": "dataset"},
}


@pytest.fixture(scope="module")
def system() -> CrashVLM:
    return CrashVLM(BASE_MODEL, embedder=None)


@pytest.mark.parametrize("name", CASES)
def test_ids_stay(name, system, monkeypatch):
    assert run_lengths(item_ids(name, system, monkeypatch)) == EXPECTED[name]


def item_ids(name: str, system: CrashVLM, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Ids of one clip of 7.4 s, through the settings of the model's folder, the data module and its recipe."""

    def frames(path: Path, sampling: FrameSampling, *rest: object, **others: object) -> Frames:
        num_frames = sampling.num_frames
        info = ClipInfo(path, 74, 10.0, 7.4, 8, 8, "none")
        return Frames(np.zeros((num_frames, 8, 8, 3), np.uint8), (0,) * num_frames, (0.0,) * num_frames, info, "none")

    monkeypatch.setattr("vlm_crash.data.dataset.read_frames", frames)
    data = CrashDataModule(**CASES[name])
    data.connect(system.inputs)
    assert data.recipe is not None
    answer = "This is a crash scenario.\n- Weather: Unknown\n- Lanes: 2"
    sample = VideoSample("crash_1", "1.mp4", Path("1.mp4"), "crash", None, None, question=QUESTION, answer=answer)
    return data.recipe.item(sample, supervised=name.endswith("answered")).input_ids_S.tolist()


def run_lengths(ids: list[int]) -> list[list[int]]:
    return [[token, len(list(same))] for token, same in groupby(ids)]
