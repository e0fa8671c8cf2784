"""Processes that would share other clips stop, all of them, before the first step."""

from tests.copies import copied, samples_of, spoil
from vlm_crash.data.check import check
from vlm_crash.schema.fields import load_schema
from vlm_crash.video.preflight import Limits


def test_processes_that_see_other_clips_all_say_so(launch, prepared, demo_clips, tmp_path):
    dataset = copied(prepared, tmp_path)
    spoil(samples_of(dataset, "train")[0])
    check(dataset, load_schema(), Limits(), num_workers=2)
    first, second = launch("clips_found", 2, dataset)
    assert first["same"] == second["same"] == 9
    said = "do not have the same clips: this one has train: {}, val: 4; the first process has {}. Give all"
    assert said.format(9, "the same, and another one has not") in first["error"]
    assert said.format(10, "others of train (9)") in second["error"]
