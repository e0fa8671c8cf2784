"""Drives: events at known times, between them nothing; the same drive from the same seed."""

import csv
from itertools import pairwise
from random import Random

import numpy as np
import pytest

from vlm_crash.data.conversation import question
from vlm_crash.data.prepare import prepare
from vlm_crash.demo.drive_files import AWAY_S, KINDS, SEEN_S, clip_of, clip_start, write_clips, write_drives
from vlm_crash.demo.drives import HOLD_S, sample_drive
from vlm_crash.demo.motion import aftermath, parting
from vlm_crash.demo.world import ORDINARY
from vlm_crash.schema.fields import load_schema
from vlm_crash.schema.records import Annotation
from vlm_crash.video.reader import probe


def test_a_drive_is_as_long_and_as_eventful_as_asked_for():
    drive = sample_drive(11, 600.0, 3)
    assert drive.duration_s == pytest.approx(600.0)
    assert len(drive.events) == 3
    assert all(before.end_s + HOLD_S < after.moment_s for before, after in pairwise(drive.events))
    assert drive == sample_drive(11, 600.0, 3) != sample_drive(12, 600.0, 3)


def test_the_truth_is_what_the_picture_shows():
    for seed in range(20):
        drive = sample_drive(seed, 90.0, 2)
        for truth in drive.events:
            leg = next(leg for leg in drive.legs if leg.truth == truth)
            moment_s = truth.moment_s - leg.start_s
            shown = aftermath if truth.event == "crash" else parting
            assert shown(leg.scene, moment_s - 0.05) == 0 < shown(leg.scene, moment_s + 0.05)
            assert truth.start_s < truth.moment_s < truth.end_s
            Annotation.of(load_schema(), truth.event, truth.values)  # its record is one


def test_ordinary_driving_shows_no_event_at_any_time():
    legs = [leg for seed in range(10) for leg in sample_drive(seed, 60.0, 1).legs if leg.scene.event == ORDINARY]
    for leg in legs:
        for t_s in np.arange(0.0, leg.length_s, 2.0):
            assert aftermath(leg.scene, t_s) == parting(leg.scene, t_s) == 0
    assert {leg.scene.motion.ego_speed > 0 for leg in legs} == {True, False}


def test_a_picture_depends_on_its_moment_alone():
    drive = sample_drive(4, 60.0, 1)
    one = drive.picture(31.4, (96, 54))
    list(drive.pictures(0.0, 1.0, (96, 54)))
    assert np.array_equal(one, drive.picture(31.4, (96, 54)))


def test_too_many_events_are_refused():
    with pytest.raises(ValueError, match="make it longer, or have fewer events"):
        sample_drive(0, 30.0, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_shows_its_event_or_keeps_away_from_it(kind):
    for seed in range(100):
        drive = sample_drive(seed, 75.0, 1, None if kind == ORDINARY else kind)
        truth, start_s = drive.events[0], clip_start(drive, kind, 6.0, Random(seed))
        assert 0 <= start_s <= drive.duration_s - 6.0
        if kind == ORDINARY:
            assert start_s + 6.0 <= truth.moment_s - AWAY_S + 1e-9 or start_s >= truth.end_s + HOLD_S
        else:
            assert truth.event == kind
            assert start_s <= truth.moment_s <= start_s + 6.0 - SEEN_S + 1e-9


def test_a_third_of_the_clips_of_ordinary_driving_show_ego_standing():
    standing = 0
    for seed in range(200):
        drive, start_s = clip_of(seed, ORDINARY, 6.0)
        assert clip_of(seed, ORDINARY, 6.0) == (drive, start_s)
        truth = drive.events[0]
        legs = [leg for leg in drive.legs if leg.start_s < start_s + 6.0 and leg.start_s + leg.length_s > start_s]
        stands = len(legs) == 1 and legs[0].scene.event == ORDINARY and legs[0].scene.motion.ego_speed == 0
        assert stands or start_s + 6.0 <= truth.moment_s - AWAY_S + 1e-9 or start_s >= truth.end_s + HOLD_S
        standing += stands
    assert 70 < standing < 120


def test_files_of_drives_and_clips(tmp_path):
    (drive,) = write_drives(tmp_path / "drives", [5], 32.0, 1)
    with (tmp_path / "drives/drives.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["video"] == "1.mp4" and float(row["moment_s"]) == pytest.approx(drive.events[0].moment_s, abs=1e-3)
    assert probe(tmp_path / "drives/1.mp4").duration_s == pytest.approx(32.0, abs=0.1)
    write_clips(tmp_path / "clips", dict.fromkeys(KINDS, 2), 0, 2.0)
    before = (tmp_path / "clips/crash/1.mp4").stat()
    (tmp_path / "clips/crash/2.mp4").unlink()  # a stopped run goes on: what is there is not drawn again
    write_clips(tmp_path / "clips", dict.fromkeys(KINDS, 2), 0, 2.0)
    assert (tmp_path / "clips/crash/1.mp4").stat().st_mtime_ns == before.st_mtime_ns
    with pytest.raises(ValueError, match=r"10001 clips from seed=0 on are not in"):
        write_clips(tmp_path / "many", {ORDINARY: 10_001}, 0, 2.0)
    sources = {kind: (tmp_path / f"clips/{kind}.csv", tmp_path / "clips" / kind) for kind in KINDS}
    scan = load_schema("scan.yaml")
    report = prepare(
        sources, tmp_path / "dataset", scan, fractions=(1.0, 0.0, 0.0), question=lambda event: question(scan, "short")
    )
    assert report.num_clips == dict.fromkeys(KINDS, 2) and report.num_problems == 0
