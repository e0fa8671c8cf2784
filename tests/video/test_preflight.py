"""What is found in clips that are decoded as a whole, and what becomes of a decoder that takes too much."""

import csv
from collections.abc import Callable
from pathlib import Path

import av
import pytest

from tests.video.conftest import frame_numbers, write_clip
from vlm_crash.video import FrameSampling, preflight, read_frames
from vlm_crash.video.container import UnreadableClipError, scan_packets
from vlm_crash.video.preflight import Limits, Preflight, examine

TORTURE = Path(__file__).resolve().parents[2].parent / "shared/clips/torture"


def test_facts_of_a_whole_clip(tmp_path):
    facts = examine(write_clip(tmp_path / "clip.mp4"), memory_gib=4)
    assert (facts.codec, facts.width, facts.height) == ("h264", 64, 48)
    assert facts.num_frames == facts.header_frames
    assert facts.fps is not None and facts.first_s == 0
    assert facts.last_s == pytest.approx((facts.num_frames - 1) / facts.fps)
    assert facts.duration_s == pytest.approx(facts.num_frames / facts.fps)
    assert facts.damage is None


def test_a_clip_that_was_cut_off_is_damaged_and_one_without_frames_unreadable(tmp_path):
    path = write_clip(tmp_path / "cut.mp4", movflags="faststart", g="1", crf="0")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    facts = examine(path)
    assert facts.header_frames is not None and 0 < facts.num_frames < facts.header_frames
    assert f"the header promises {facts.header_frames} frames, {facts.num_frames} can be decoded" in str(facts.damage)
    path.write_bytes(b"no clip")
    with pytest.raises(UnreadableClipError, match="not a video"):
        examine(path)


@pytest.mark.parametrize("look", [examine, scan_packets])
def test_an_avi_cut_behind_its_header_holds_no_frames(tmp_path, look):
    path = write_clip(tmp_path / "cut.avi", num_frames=5, codec="mpeg4")
    path.write_bytes(path.read_bytes().partition(b"movi")[0] + b"movi")
    with pytest.raises(UnreadableClipError, match=r"cut\.avi: its video stream holds no frames$"):
        look(path)


def remuxed(path: Path, change: Callable[[int, bytes], bytes | None]) -> Path:
    """The clip beside it with its packets changed; None: without that one."""
    target = path.with_stem("changed")
    with av.open(str(path)) as source, av.open(str(target), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            content = change(number, bytes(packet))
            if content is not None:
                copy = av.Packet(content)
                copy.pts, copy.dts, copy.time_base, copy.stream = packet.pts, packet.dts, packet.time_base, stream
                copy.is_keyframe = packet.is_keyframe
                container.mux(copy)
    return target


def test_frames_that_do_not_come_are_missed_where_no_header_counts_them(tmp_path):
    """MPEG-TS that begins in the middle of a GOP."""
    whole = write_clip(tmp_path / "whole.ts", g="20", bf="0", **{"x264-params": "scenecut=0"})
    cut = remuxed(whole, lambda number, content: content if number >= 5 else None)
    facts, frames = examine(cut), read_frames(cut, FrameSampling(20))
    assert facts.damage == "there are packets of 35 frames, 20 can be decoded" and examine(whole).damage is None
    assert frames.num_missing == 15 and frame_numbers(frames.frames_FHWC) == list(range(20, 40))


def test_packets_that_show_nothing_are_not_missed(tmp_path):
    """VP8's frames that are only looked back to, as an encoder of two passes makes them."""
    whole = write_clip(tmp_path / "whole.webm", codec="libvpx", b="2000000", deadline="realtime")
    unseen = remuxed(whole, lambda n, content: bytes([content[0] & ~0x10, *content[1:]]) if n in (7, 20) else content)
    facts, frames = examine(unseen), read_frames(unseen, FrameSampling(38))
    assert (facts.num_frames, facts.damage, frames.damage) == (38, None, None)
    assert frame_numbers(frames.frames_FHWC) == [n for n in range(40) if n not in (7, 20)]


def test_memory_is_limited_beside_what_the_process_takes(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "MODULE", "tests.video.odd_preflight")
    good, eats = write_clip(tmp_path / "clip.mp4"), write_clip(tmp_path / "eats.mp4")
    process = Preflight(Limits(timeout_s=300, memory_gib=0.25))
    try:
        num_frames = process.facts(good).num_frames
        with pytest.raises(UnreadableClipError, match=r"it takes more than 0\.25 GiB of memory"):
            process.facts(eats)
        assert process.facts(good).num_frames == num_frames
    finally:
        process.stop()


@pytest.mark.skipif(not TORTURE.is_dir(), reason="../shared/clips is absent")
def test_odd_and_broken_clips_have_the_frames_that_can_be_decoded():
    with (TORTURE / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file) if (TORTURE / row["file"]).is_file()}
    assert len(rows) > 50
    del rows["long_3h30.mp4"]  # right, too, but seconds
    found = {}
    for name in rows:
        try:
            found[name] = examine(TORTURE / name).num_frames
        except UnreadableClipError:
            found[name] = 0
    assert found == {name: int(row["true_frames_ffmpeg5.1"]) for name, row in rows.items()}
