"""Frames kept while a clip is decoded as a whole say of decord what reading the clip once more would say."""

import csv
from pathlib import Path

import numpy as np
import pytest

from tests.video.conftest import call_all_keyframes, frame_numbers, write_clip
from tests.video.test_other_readers import OPEN_GOP
from vlm_crash.video import FrameSampling, preflight, read_frames, witnesses
from vlm_crash.video.comparison import decord_disagreements
from vlm_crash.video.container import scan_packets
from vlm_crash.video.preflight_process import SAMPLINGS, Looker
from vlm_crash.video.witnesses import Witnesses, telling

TORTURE = Path(__file__).resolve().parents[2].parent / "shared/clips/torture"


def kept(path: Path, *num_frames: int) -> Witnesses:
    found = Witnesses(path, [FrameSampling(number) for number in num_frames])
    preflight.examine(path, see=found.see)
    return found


def test_of_a_plain_clip_those_behind_keyframes_and_the_last_are_asked_for(make_clip, monkeypatch):
    """Keyframes 0, 6, 12, ...; 16 of 40 frames are 0, 3, 5, 8, ..."""
    path = make_clip(num_frames=40, bf="2", g="6")
    indices = FrameSampling(16).choose(scan_packets(path).times_s)
    assert telling(scan_packets(path), indices) == [0, 8, 13, 18, 25, 30, 38]
    one_keyframe = scan_packets(make_clip("one.mp4", num_frames=40, g="100"))
    assert telling(one_keyframe, indices) == indices[:3]
    monkeypatch.setattr(witnesses, "_NEAR", 4)  # frames behind a keyframe
    two = scan_packets(make_clip("two.mp4", num_frames=40, g="20"))
    assert telling(two, [3, 12, 22, 24]) == [3, 22, 24] and telling(two, [3, 12, 22, 25]) == [3, 22]
    many = scan_packets(make_clip("many.mp4", num_frames=40, g="1"))
    assert len(telling(many, indices)) == 8 and telling(many, indices)[-1] == indices[-1]


@pytest.mark.parametrize(("name", "settings"), [("odd.ts", {"g": "6"}), ("open.mp4", OPEN_GOP)])
def test_of_another_clip_all_are_asked_for(make_clip, name, settings):
    scan = scan_packets(make_clip(name, num_frames=40, **settings))
    indices = FrameSampling(16).choose(scan.times_s)
    assert telling(scan, indices) == indices


@pytest.mark.parametrize("settings", [{}, {"bf": "2", "g": "6"}, OPEN_GOP], ids=["plain", "b-frames", "open GOP"])
def test_they_are_the_frames_that_reading_gives_and_say_the_same(make_clip, settings):
    pytest.importorskip("decord")
    path = make_clip(num_frames=40, **settings)
    found = kept(path, 8)
    assert found._chosen is not None
    all_FHWC = read_frames(path, FrameSampling(40)).frames_FHWC
    np.testing.assert_array_equal(found._chosen.frames_FHWC, all_FHWC[found._indices])
    said = decord_disagreements(path, FrameSampling(8))
    assert found.judge() == (True, said) and (said is None) == (settings is not OPEN_GOP)


def test_keyframes_that_are_none_settle_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(witnesses, "_INDEXED", {"avi"})
    path = call_all_keyframes(write_clip(tmp_path / "a.avi", codec="wmv2", g="12"))
    assert witnesses.is_plain(scan_packets(path))
    assert kept(path, 8).judge() == (False, None)


def test_an_open_gop_is_tried_a_second_time(make_clip, monkeypatch):
    """As in two of the clips below, where decord is right with 32 frames and wrong with 16."""
    asked = []

    def right(scan, indices):
        asked.append(list(indices))
        return read_frames(scan.info.path, FrameSampling(40)).frames_FHWC[list(indices)]

    monkeypatch.setattr(witnesses, "read_decord", right)
    assert kept(make_clip(num_frames=40, **OPEN_GOP), 8, 4).judge() == (True, None)
    assert [len(indices) for indices in asked] == [8, 4]
    asked.clear()
    assert kept(make_clip("plain.mp4", num_frames=40, g="10"), 8, 4).judge() == (True, None)
    assert len(asked) == 1


def test_what_a_plain_clip_gets_wrong_is_counted_among_all(make_clip, monkeypatch):
    path = make_clip(num_frames=40, g="10")
    shifted = np.roll(read_frames(path, FrameSampling(40)).frames_FHWC, -5, axis=0)
    assert frame_numbers(shifted)[:2] == [5, 6]
    monkeypatch.setattr(witnesses, "read_decord", lambda scan, indices: shifted[list(indices)])
    is_settled, wrong = kept(path, 8).judge()
    assert not is_settled and wrong is not None and "another picture" in wrong


def test_a_clip_that_gives_other_frames_than_its_packets_promise_settles_nothing(make_clip):
    found = Witnesses(make_clip(num_frames=40), SAMPLINGS)
    preflight.examine(make_clip("shorter.mp4", num_frames=39), see=found.see)
    assert found.judge() == (False, None)


@pytest.mark.skipif(not TORTURE.is_dir(), reason="../shared/clips is absent")
def test_every_clip_that_decord_reads_wrong_is_found():
    """Eight, by readers.csv; those that are right stay right."""
    pytest.importorskip("decord")
    with (TORTURE / "readers.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["reader"] == "decord 0.6.0 num_threads=1"]
    wrong = [row["file"] for row in rows if row["verdict"] == "wrong"]
    assert len(wrong) == 8
    looker, said = Looker(), {}
    for name in (*wrong, "00_good_360p.mp4", "closedgop_bframes.mp4", "rotation90.mp4"):
        looker.examine(TORTURE / name, 8, True)
        said[name] = looker.compare(TORTURE / name, 8)
    assert [name for name, found in said.items() if found is not None] == wrong


def test_frames_are_kept_for_the_next_question_only(tmp_path):
    pytest.importorskip("decord")
    looker, path = Looker(), write_clip(tmp_path / "clip.mp4")
    looker.examine(path, None, True)
    assert looker._witnesses is not None and looker.compare(path, None) is None
    assert looker._witnesses is None and looker.compare(path, None) is None
    looker.examine(path, None, False)
    assert looker._witnesses is None
