"""Readers that are asked for by name: decord gives what the old scripts saw, or says that it cannot."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from vlm_crash.video import FrameSampling, UnreadableClipError, guarded, other_readers, read_frames
from vlm_crash.video.container import scan_packets
from vlm_crash.video.reader import check_reader

decord = pytest.importorskip("decord")

OPEN_GOP = {"g": "8", "x264-params": "open-gop=1:bframes=3:b-adapt=0:scenecut=0"}


def old_frames(path, indices) -> np.ndarray:
    """As InternVL's and VideoChat-Flash's scripts read them: all in one call."""
    return decord.VideoReader(str(path), num_threads=1).get_batch(list(indices)).asnumpy()


@pytest.mark.parametrize("settings", [{}, {"bf": "2", "g": "6"}, OPEN_GOP], ids=["plain", "b-frames", "open GOP"])
def test_decord_gives_what_the_old_scripts_saw(make_clip, settings):
    """Wrong frames of an open GOP, too; more of them than are copied at once."""
    path = make_clip(num_frames=40, **settings)
    for read in (read_frames, guarded.read_frames):
        frames = read(path, FrameSampling(20), "decord")
        assert frames.reader == "decord"
        np.testing.assert_array_equal(frames.frames_FHWC, old_frames(path, frames.indices))


def test_decord_is_not_believed_when_it_counts_otherwise(make_clip, monkeypatch):
    monkeypatch.setattr(decord.VideoReader, "__len__", lambda self: 44)
    with pytest.raises(UnreadableClipError, match="decord counts 44 frames, its packets 40"):
        read_frames(make_clip(), FrameSampling(4), "decord")


def test_decords_error_is_one_line(make_clip, monkeypatch):
    def fail(*_args, **_kwargs):
        raise decord.DECORDError("[10:11:12] /x/video_reader.cc:270: broken\n\nStack trace returned 10 entries:\n[bt]")

    monkeypatch.setattr(decord, "VideoReader", fail)
    with pytest.raises(UnreadableClipError, match=r"clip\.mp4: decord: broken$"):
        read_frames(make_clip(), FrameSampling(2), "decord")


def test_decord_reads_no_gif_and_says_so(make_clip):
    with pytest.raises(UnreadableClipError, match="decord"):
        read_frames(make_clip("a.gif", codec="gif"), FrameSampling(2), "decord")


def test_a_reader_that_is_not_there(monkeypatch):
    with pytest.raises(ValueError, match=r"reader='opencv' is not one of \['auto', 'decord', 'pyav', 'torchcodec'\]"):
        check_reader("opencv")
    monkeypatch.setattr("vlm_crash.video.other_readers.find_spec", lambda name: None)
    for name in ("decord", "torchcodec"):
        with pytest.raises(ValueError, match=f"{name} is not installed; pip install {name}"):
            check_reader(name)
    check_reader("auto")
    check_reader("pyav")


def test_torchcodec_that_does_not_load(monkeypatch):
    """Without FFmpeg's libraries it can be imported, and opens no clip."""
    monkeypatch.setattr(other_readers, "find_spec", lambda name: name)
    monkeypatch.setattr(other_readers, "import_module", lambda name: SimpleNamespace(ffmpeg_major_version=None))
    other_readers._load_problem.cache_clear()
    with pytest.raises(ValueError, match=r"torchcodec is installed and does not load .* take reader=auto"):
        check_reader("torchcodec")
    other_readers._load_problem.cache_clear()


@pytest.mark.parametrize("told_fps", [None, 500.0], ids=["believed", "broken"])
def test_frames_of_other_times_are_not_believed(make_clip, told_fps):
    scan = scan_packets(make_clip(num_frames=40))
    times_s = scan.times_s
    if told_fps is not None:  # FFmpeg's own times then, not those by the frame rate
        scan = replace(scan, info=replace(scan.info, told_fps=told_fps))
        times_s = np.arange(40) / told_fps
    step_s = times_s[1]
    other_readers._check_times(scan, [0, 7, 7, 39], times_s[[0, 7, 7, 39]] + 0.4 * step_s)
    with pytest.raises(UnreadableClipError, match="frames of other times for 2 of 4"):
        other_readers._check_times(scan, [0, 7, 7, 39], times_s[[0, 8, 7, 38]])


@pytest.mark.skipif(other_readers.missing_reason("torchcodec") is not None, reason="torchcodec does not load here")
def test_torchcodec_gives_the_same_frames(make_clip, numbers):
    path = make_clip(num_frames=40)
    frames = read_frames(path, FrameSampling(8), "torchcodec")
    assert frames.reader == "torchcodec"
    assert numbers(frames.frames_FHWC) == list(frames.indices)
