"""Odd clips that the tests make themselves: each picture carries its number, so a wrong one is seen."""

import re
import struct
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.video.conftest import LEVEL_STEP, frame_numbers, write_clip, write_noise
from vlm_crash.video import FrameSampling, comparison, guarded, probe, read_frames
from vlm_crash.video.comparison import decord_disagreements
from vlm_crash.video.container import scan_packets
from vlm_crash.video.preflight import examine


def add_grey(stream, container, number: int, pts: int | None = None) -> None:
    frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 16 + LEVEL_STEP * number, np.uint8), format="rgb24")
    if pts is not None:
        frame.pts, frame.time_base = pts, stream.codec_context.time_base
    container.mux(stream.encode(frame))


def write_times(path: Path, times_ms: list[int], **muxing: str) -> Path:
    """Grey frames shown at those milliseconds."""
    with av.open(str(path), "w", options=muxing) as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time_ms in enumerate(times_ms):
            add_grey(stream, container, number, time_ms)
        container.mux(stream.encode())
    return path


def patched(path: Path, box: bytes, offset: int, form: str, *values: int) -> Path:
    """Write numbers into an MP4's box, behind its name."""
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, content.index(box) + 4 + offset, *values)
    path.write_bytes(content)
    return path


def test_variable_frame_rate_is_sampled_by_time(tmp_path):
    """20 frames in a second, then 10 in ten seconds: the middles of eleven equal parts, and not of 30 frames."""
    times_ms = [*range(0, 1000, 50), *range(1000, 11_000, 1000)]
    for name in ("vfr.mp4", "vfr.mkv"):
        frames = read_frames(write_times(tmp_path / name, times_ms), FrameSampling(11))
        assert frame_numbers(frames.frames_FHWC) == list(frames.indices)
        np.testing.assert_allclose(frames.times_s, np.array(times_ms)[list(frames.indices)] / 1000, atol=2e-3)
        assert sum(index >= 20 for index in frames.indices) >= 9


def write_ticks(path: Path, ticks: int) -> Path:
    """60 pictures, so many 90,000ths of a second apart, that stand still until the 40th."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 90_000)
        for number in range(60):
            add_grey(stream, container, max(0, number - 40), number * ticks)
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("suffix", ["mp4", "ts"])
def test_time_stamps_that_cannot_be_are_not_believed(tmp_path, caplog, suffix):
    """One tick apart, 90,000 frames a second: each rule and window takes what it takes of the same clip at 25."""
    good, broken = write_ticks(tmp_path / f"good.{suffix}", 3600), write_ticks(tmp_path / f"broken.{suffix}", 1)
    window = {"start_s": 1.0, "end_s": 2.0}
    for options in ({}, {"rule": "fps", "fps": 5.0}, {"rule": "event"}, {"rule": "duration"}, window):
        want, found = (read_frames(path, FrameSampling(8, **options)) for path in (good, broken))
        assert found.indices == want.indices and len(found.indices) > 1
        np.testing.assert_allclose(found.times_s, want.times_s, atol=1e-6)
        assert frame_numbers(found.frames_FHWC) == frame_numbers(want.frames_FHWC)  # the encoder rounds otherwise
    assert (found.info.fps, found.info.told_fps, want.info.told_fps) == (25, pytest.approx(90_000), None)
    assert found.info.duration_s == pytest.approx(2.4) == want.info.duration_s
    said = "its time stamps say 90000 frames a second, which cannot be; it is taken to have 25, and to last 2.40 s"
    assert caplog.text.count(f"broken.{suffix}: {said}") == 1 and f"good.{suffix}" not in caplog.text
    facts = examine(broken)
    assert facts.damage == "the time stamps say 90000 frames a second" and examine(good).damage is None
    assert facts.duration_s == pytest.approx(2.4) and facts.last_s is not None and facts.first_s is not None
    assert facts.last_s - facts.first_s == pytest.approx(59 / 90_000, abs=1e-6)


def test_times_count_from_the_first_frame_shown(tmp_path):
    for name in ("late.ts", "late.mkv"):
        path = write_times(tmp_path / name, list(range(0, 1600, 40)), output_ts_offset="36000")
        frames = read_frames(path, FrameSampling(8))
        assert frame_numbers(frames.frames_FHWC) == list(frames.indices) == [2, 7, 12, 17, 22, 27, 32, 37]
        np.testing.assert_allclose(frames.times_s, np.array(frames.indices) / 25, atol=2e-3)


@pytest.mark.parametrize(
    ("first_s", "second_s", "num_jumps"), [(0, 0, 1), (0, 0.02, 1), (0, 1000, 1), (1000, 0, 1), (0, 5.8, 0)]
)
def test_recordings_that_are_put_together_follow_one_another(tmp_path, caplog, first_s, second_s, num_jumps):
    """MPEG-TS, as `cat` makes it: each part has a clock of its own. A hole of five seconds is a hole."""
    parts = [
        write_times(tmp_path / f"{start_s}.ts", list(range(0, 800, 40)), output_ts_offset=str(start_s)).read_bytes()
        for start_s in (first_s, second_s)
    ]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(parts))
    frames, facts = read_frames(path, FrameSampling(40)), examine(path)
    assert frames.info.duration_s == (pytest.approx(1.6, abs=1e-3) if num_jumps else pytest.approx(6.6, abs=0.1))
    assert facts.duration_s == pytest.approx(frames.info.duration_s)
    said = f"the clock jumps ({num_jumps} time): what follows is taken to go on from there"
    assert (said in str(facts.damage)) == (num_jumps > 0) == ("its clock jumps (1 time)" in caplog.text)
    if num_jumps:
        assert frame_numbers(frames.frames_FHWC) == [*range(20), *range(20)]
        np.testing.assert_allclose(frames.times_s, np.arange(40) / 25, atol=1e-3)


def test_a_hole_between_frames_that_are_stored_in_another_order_is_closed(tmp_path):
    """Twelve seconds, as the packets tell it: with B-frames their decoding time stamps leap some packets later."""
    path = write_times(tmp_path / "a.ts", [*range(0, 800, 40), *range(12_800, 13_600, 40)])
    scan, frames = scan_packets(path), read_frames(path, FrameSampling(40))
    np.testing.assert_allclose(scan.times_s, np.arange(40) / 25, atol=1e-3)
    assert frames.times_s == tuple(scan.times_s.tolist()) and frame_numbers(frames.frames_FHWC) == list(range(40))
    assert scan.info.num_jumps == examine(path).num_jumps == 1


def test_a_clock_that_goes_back_in_other_containers_goes_on(tmp_path):
    """FLV twice, one behind the other without its second header, as `cat` would make it; a hole in it stays."""
    once = write_times(tmp_path / "a.flv", [*range(0, 800, 40), *range(20_800, 21_600, 40)]).read_bytes()
    path = tmp_path / "twice.flv"
    path.write_bytes(once + once[13:])
    frames, facts = read_frames(path, FrameSampling(80)), examine(path)
    assert frames.info.num_jumps == facts.num_jumps == 1 and facts.num_frames == frames.info.num_frames == 80
    assert frames.info.duration_s == pytest.approx(43.2, abs=0.01) == pytest.approx(facts.duration_s, abs=0.01)
    assert frame_numbers(frames.frames_FHWC) == [index % 40 for index in frames.indices]
    assert frames.times_s == tuple(sorted(frames.times_s)) and frames.times_s[-1] > 42


def test_an_edit_list_hides_what_a_player_does_not_show(tmp_path):
    """15 of 40 frames, the entry in the middle of a GOP; decord shows them."""
    path = write_clip(tmp_path / "cut.mp4", num_frames=40, g="20", bf="0")
    content = path.read_bytes()
    start = content.index(b"elst") + 12
    duration, media_time = struct.unpack_from(">ii", content, start)
    patched(path, b"elst", 8, ">ii", duration - 1500, media_time + 15 * 1024)
    frames = read_frames(path, FrameSampling(25))
    assert frame_numbers(frames.frames_FHWC) == list(range(15, 40))
    assert frames.times_s[0] == 0 and frames.info.duration_s == pytest.approx(2.5)
    assert (frames.info.num_frames, frames.info.header_frames) == (25, 40)
    pytest.importorskip("decord")
    said = decord_disagreements(path, FrameSampling(8))
    assert said is not None and re.match(r"decord counts \d+ frames, its packets 25: it would give wrong ones", said)


def test_what_an_edit_list_cuts_off_is_not_missing(tmp_path):
    """FFmpeg gives no packet of the first GOP; of a file that was cut off, too, what is missing is."""
    path = write_clip(tmp_path / "cut.mp4", num_frames=40, g="20", bf="0", crf="0", movflags="faststart")
    content = path.read_bytes()
    duration, media_time = struct.unpack_from(">ii", content, content.index(b"elst") + 12)
    patched(path, b"elst", 8, ">ii", duration - 2500, media_time + 25 * 1024)
    frames = read_frames(path, FrameSampling(15))
    assert frame_numbers(frames.frames_FHWC) == list(range(25, 40))
    assert (examine(path).header_frames, examine(path).damage, frames.damage) == (40, None, None)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 9 // 10])
    facts, frames = examine(path), read_frames(path, FrameSampling(15))
    assert 0 < facts.num_frames == frames.info.num_frames < 15 and frames.num_missing == 15 - facts.num_frames
    assert f"the header promises 40 frames, {facts.num_frames} can be decoded" in str(facts.damage)


def test_empty_chunks_of_avi_are_not_missing(tmp_path):
    """A stream that may have 50 frames a second, and has 25."""
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=50)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 50)
        for number in range(20):
            add_grey(stream, container, number, 2 * number)
        container.mux(stream.encode())
    facts, frames = examine(path), read_frames(path, FrameSampling(20))
    assert facts.header_frames == 39 and facts.num_frames == 20
    assert facts.damage is None and frames.damage is None


@pytest.mark.parametrize(("matrix", "turns"), [((0, 1, -1, 0), 3), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
def test_a_turned_clip_is_shown_upright(tmp_path, matrix, turns):
    """The white edge is on the left of what is stored; `turns`: quarters counterclockwise."""
    path = write_clip(tmp_path / "turned.mp4", num_frames=5)
    stored = read_frames(path, FrameSampling(2)).frames_FHWC
    a, b, c, d = (value * 2**16 for value in matrix)
    patched(path, b"tkhd", 40, ">5i", a, b, 0, c, d)
    shown = read_frames(path, FrameSampling(2)).frames_FHWC
    np.testing.assert_array_equal(shown, np.rot90(stored, turns, axes=(1, 2)))


@pytest.mark.parametrize(
    ("matrix", "place"),
    [
        ((-1, 0, 0, 1), lambda x, y: (63 - x, y)),
        ((1, 0, 0, -1), lambda x, y: (x, 47 - y)),
        ((0, 1, 1, 0), lambda x, y: (y, x)),
        ((0, -1, -1, 0), lambda x, y: (47 - y, 63 - x)),
    ],
)
def test_a_mirrored_clip_is_shown_as_its_matrix_says(tmp_path, matrix, place):
    """[x' y'] = [x y] [[a b] [c d]], moved into the picture (ISO 14496-12, 8.3.2), pixel by pixel."""
    path = write_noise(tmp_path / "mirrored.mp4", "libx264", (64, 48), "yuv444p", {"crf": "1"})
    stored = read_frames(path, FrameSampling(1)).frames_FHWC[0]
    a, b, c, d = (value * 2**16 for value in matrix)
    patched(path, b"tkhd", 40, ">5i", a, b, 0, c, d)
    shown = read_frames(path, FrameSampling(1)).frames_FHWC[0]
    assert shown.shape == ((64, 48, 3) if a == 0 else (48, 64, 3))
    for x in (0, 5, 63):
        for y in (0, 7, 47):
            at_x, at_y = place(x, y)
            np.testing.assert_array_equal(shown[at_y, at_x], stored[y, x])


@pytest.mark.parametrize(("aspect", "shape"), [(Fraction(4, 3), (48, 85)), (Fraction(3, 4), (64, 64))])
def test_pixels_are_made_square(tmp_path, aspect, shape):
    path = tmp_path / "wide.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        for number in range(8):
            add_grey(stream, container, number)
        container.mux(stream.encode())
    frames = read_frames(path, FrameSampling(4))
    assert frames.frames_FHWC.shape == (4, *shape, 3)
    assert frame_numbers(frames.frames_FHWC) == [0, 2, 4, 6]
    assert frames.info.sample_aspect == pytest.approx(float(aspect), rel=1e-3)


def test_the_first_of_two_cameras_is_read_and_the_other_mentioned(tmp_path, caplog):
    path = tmp_path / "two.mp4"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=10) for _ in range(2)]
        for stream, (width, height) in zip(streams, ((64, 48), (128, 96)), strict=True):
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(20):
            add_grey(streams[0], container, number)
            picture = av.VideoFrame.from_ndarray(np.full((96, 128, 3), 255, np.uint8), format="rgb24")
            container.mux(streams[1].encode(picture))
        for stream in streams:
            container.mux(stream.encode())
    with caplog.at_level("WARNING"):
        for _ in range(2):  # and mentioned once
            frames = read_frames(path, FrameSampling(4))
    assert frames.frames_FHWC.shape == (4, 48, 64, 3)
    assert frame_numbers(frames.frames_FHWC) == list(frames.indices)
    assert frames.info.num_videos == probe(path).num_videos == 2
    assert caplog.text.count("2 video streams are in it; the first one is read") == 1


def test_a_clip_that_changes_its_size_keeps_the_first(tmp_path):
    """MPEG-TS, as a camera that is set otherwise while it records."""
    first, second = write_clip(tmp_path / "1.ts", num_frames=10), tmp_path / "2.ts"
    with av.open(str(second), "w", options={"output_ts_offset": "3"}) as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "1", "g": "1"})
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        for number in range(10, 20):
            grey = av.VideoFrame.from_ndarray(np.full((24, 32, 3), 16 + LEVEL_STEP * number, np.uint8), format="rgb24")
            container.mux(stream.encode(grey))
        container.mux(stream.encode())
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    frames = read_frames(joined, FrameSampling(20))
    assert frames.frames_FHWC.shape == (20, 48, 64, 3)
    levels = frames.frames_FHWC[:, 8:40, 16:].mean(axis=(1, 2, 3))
    np.testing.assert_allclose(levels, 16 + LEVEL_STEP * np.arange(20), atol=2.5)  # resized, rounding is coarser


def test_lost_frames_do_not_shift_the_times_of_later_ones(tmp_path):
    """Five of 40 pictures in the middle are zeros: those behind them keep their own times."""
    path = write_clip(tmp_path / "a.mp4", num_frames=40, movflags="faststart", g="1", crf="0")
    with av.open(str(path)) as container:
        lost = [packet for packet in container.demux(video=0) if packet.size][18:23]
        content = bytearray(path.read_bytes())
        for packet in lost:
            content[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    path.write_bytes(content)
    frames = read_frames(path, FrameSampling(35))
    kept = [*range(18), *range(23, 40)]
    assert (frames.info.num_frames, frames.info.header_frames, frames.num_damaged) == (35, 40, 5)
    assert frame_numbers(frames.frames_FHWC) == kept
    np.testing.assert_allclose(frames.times_s, np.array(kept) / 10, atol=1e-6)
    assert guarded.read_frames(path, FrameSampling(35)).num_damaged == 5


def test_disagreements_name_the_frames(make_clip):
    """As decord is wrong on open GOPs: other frames in place of some."""
    right = read_frames(make_clip(num_frames=40), FrameSampling(16))
    moved_FHWC = right.frames_FHWC.copy()
    moved_FHWC[[3, 9]] = right.frames_FHWC[[9, 3]]
    named = ", ".join(str(right.indices[place]) for place in (3, 9))
    said = comparison.difference(right, replace(right, frames_FHWC=moved_FHWC))
    assert said == f"decord gives another picture for 2 of 16 frames: {named}"
    assert comparison.difference(right, right) is None
    wide = replace(right, frames_FHWC=right.frames_FHWC[:, :, :-1])
    assert comparison.difference(wide, right) == "decord shows 64x48 pixels, a player 63x48"


@pytest.mark.parametrize("settings", [{}, {"bf": "2", "g": "6"}])
def test_decord_agrees_on_plain_clips(make_clip, settings):
    pytest.importorskip("decord")
    assert decord_disagreements(make_clip(num_frames=40, **settings), FrameSampling(16)) is None
