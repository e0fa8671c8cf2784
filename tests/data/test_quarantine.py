"""What `check` has found decides which clips of a dataset are used, whichever of `prepare` and `check` came first."""

import os
import shutil

import pytest

from tests.copies import copied, samples_of, spoil
from vlm_crash.data.check import check
from vlm_crash.data.clip_table import ClipRow, ClipTable, Key
from vlm_crash.data.datamodule import CrashDataModule
from vlm_crash.data.quarantine import Checks, in_use
from vlm_crash.video.preflight import Limits


@pytest.fixture
def dataset(prepared, demo_clips, tmp_path):
    """A dataset whose first training clip is none."""
    folder = copied(prepared, tmp_path)
    spoil(samples_of(folder, "train")[0])
    return folder


def quarantined(folder):
    return [sample.id for sample in Checks.of(folder).mark(samples_of(folder, "train")) if sample.quarantined]


def test_a_quarantined_clip_is_kept_out_of_training(dataset, schema, caplog):
    caplog.set_level("INFO")
    bad = samples_of(dataset, "train")[0]
    report = check(dataset, schema, Limits(), num_workers=2)
    assert report.path == dataset / "clips.csv" and report.num_quarantined == 1 and len(report.rows) == 20
    assert quarantined(dataset) == [bad.id]
    assert f"9 of 10 clips used, 1 quarantined: {dataset / 'clips.csv'}" in caplog.text
    data = CrashDataModule(folder=dataset)
    data.setup("fit")
    assert bad.id not in {sample.id for sample in data.samples["train"]} and len(data.samples["train"]) == 9
    assert len(data.samples["val"]) == 4
    assert "13 of 14 clips used, 1 quarantined" in caplog.text
    data = CrashDataModule(folder=dataset, split="train")
    data.setup("predict")
    assert {sample.id for sample in data.samples["predict"] if sample.quarantined} == {bad.id}
    assert len(data.samples["predict"]) == 10


def test_a_check_of_the_clips_folder_acts_too(dataset, schema, tmp_path):
    """As where the clips were checked before the dataset was prepared; a check of the dataset takes its rows over."""
    bad = samples_of(dataset, "train")[0]
    for event in ("crash", "nearmiss"):
        check(tmp_path / "clips" / event, schema, Limits(), num_workers=2)
    assert quarantined(dataset) == [bad.id]
    report = check(dataset, schema, Limits(), num_workers=2)
    assert report.num_looked_at == 0 and len(report.rows) == 20 and report.num_quarantined == 1
    assert {row.key.event for row in report.rows} == {"crash", "nearmiss"}
    shutil.copy(samples_of(dataset, "train")[1].path, bad.path)
    assert check(bad.path.parent, schema, Limits(), num_workers=2).num_looked_at == 1
    report = check(dataset, schema, Limits(), num_workers=2)
    assert report.num_looked_at == 0 and report.num_quarantined == 0
    assert quarantined(dataset) == []


def test_nobody_has_checked(dataset, caplog):
    caplog.set_level("INFO")
    assert quarantined(dataset) == []
    assert f"10 of 10 clips used, 0 quarantined, 10 not checked (run `check {dataset}`)" in caplog.text


def test_a_list_of_that_name_is_not_taken_for_ours(dataset, tmp_path, caplog):
    caplog.set_level("INFO")
    (tmp_path / "clips" / "crash" / "clips.csv").write_text("path\n1.mp4\n")
    assert quarantined(dataset) == []
    assert "its columns are not those of `check`; it says nothing here" in caplog.text


def test_a_clip_that_has_changed_since_is_named(dataset, schema, caplog):
    bad, other = samples_of(dataset, "train")[:2]
    check(dataset, schema, Limits(), num_workers=2)
    shutil.copy(other.path, bad.path)
    assert quarantined(dataset) == []
    assert f"1 clips have changed since they were checked, and count as not checked: {bad.path}" in caplog.text
    assert check(dataset, schema, Limits(), num_workers=2).num_looked_at == 1
    assert quarantined(dataset) == []
    caplog.clear()
    os.utime(other.path, ns=(0, 0))
    quarantined(dataset)
    assert f"count as not checked: {other.path}" in caplog.text


def test_in_use_keeps_the_order(dataset, schema):
    check(dataset, schema, Limits(), num_workers=2)
    samples = samples_of(dataset, "train")
    marked = Checks.of(dataset).mark(samples)
    assert in_use(marked) == samples[1:]


def test_the_bytes_decide_where_a_time_stamp_is_another_one(dataset, schema, caplog):
    """As on a disk that rounds it, or after a copy: all processes come to the same clips."""
    bad = samples_of(dataset, "train")[0]
    check(dataset, schema, Limits(), num_workers=2)
    now = bad.path.stat().st_mtime_ns
    os.utime(bad.path, ns=(now + 1, now + 1))
    assert quarantined(dataset) == [bad.id]
    assert "count as not checked" not in caplog.text
    bad.path.write_bytes(bad.path.read_bytes()[::-1])
    assert quarantined(dataset) == []
    assert f"1 clips have changed since they were checked, and count as not checked: {bad.path}" in caplog.text


def test_all_clips_of_a_split_are_quarantined(dataset, schema):
    """The message says where that stands."""
    for sample in samples_of(dataset, "train") + samples_of(dataset, "val"):
        spoil(sample)
    check(dataset, schema, Limits(), num_workers=2)
    for stage, message in (("fit", "no train clips that can be used: all 10 are"), ("validate", "no val .* all 4 are")):
        with pytest.raises(ValueError, match=message + r" quarantined .*not a video.* clips\.csv .*--recheck true"):
            CrashDataModule(folder=dataset).setup(stage)


def test_the_later_of_two_rows_holds(dataset, schema):
    """Of the dataset's own and the one beside the clip, whichever was made last; nobody touches the clip."""
    bad = samples_of(dataset, "train")[0]
    beside = bad.path.parent
    check(dataset, schema, Limits(), num_workers=2)
    assert check(beside, schema, Limits(), num_workers=2).num_quarantined == 1
    told = {"status": "ok", "reason": ""}

    def say(folder, event, **cells):
        with ClipTable(folder / "clips.csv") as table:
            row = table.rows[Key.of(event, bad.video)]
            table.add(ClipRow({**row.cells, **cells}))

    say(beside, None, **told)
    assert quarantined(dataset) == []  # made after the dataset's
    assert check(dataset, schema, Limits(), num_workers=2).num_quarantined == 0  # takes it over
    say(dataset, bad.event, status="quarantined", reason="hangs", checked="9999")
    assert quarantined(dataset) == [bad.id]
    assert check(dataset, schema, Limits(), num_workers=2).num_quarantined == 1


def test_rows_of_an_old_file_count_and_are_older(dataset, schema):
    """It has no column `checked`; a check adds it."""
    bad = samples_of(dataset, "train")[0]
    path = check(dataset, schema, Limits(), num_workers=2).path
    lines = path.read_text().splitlines()
    path.write_text("".join(line.rpartition(",")[0] + "\n" for line in lines))
    assert quarantined(dataset) == [bad.id]
    with ClipTable(path) as table:
        table.add(ClipRow({**table.rows[Key.of(bad.event, bad.video)].cells, "checked": "2026"}))
    assert quarantined(dataset) == [bad.id]
    assert check(dataset, schema, Limits(), num_workers=2).num_looked_at == 0
    again = path.read_text().splitlines()
    assert again[0] == lines[0] and len(again) == len(lines)
    assert sorted(line.rpartition(",")[2] for line in again[1:]) == [""] * 19 + ["2026"]
