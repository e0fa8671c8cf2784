"""Clips with random bytes in them: `check`, which decodes everything, and the reader come to the same."""

from pathlib import Path

import av
import numpy as np
import pytest

from tests.video.conftest import frame_numbers, write_clip, write_noise
from vlm_crash.video import FrameSampling, read_frames
from vlm_crash.video.container import scan_packets
from vlm_crash.video.packets import come_in_pairs
from vlm_crash.video.preflight import examine

FORMATS = (
    ("a.3gp", "h263", (128, 96), "yuv420p", {}),
    ("a.mov", "prores_ks", (64, 48), "yuv422p10le", {}),
    ("a.ts", "libx264", (64, 48), "yuv420p", {"g": "10", "bf": "2"}),
    ("a.flv", "libx264", (64, 48), "yuv420p", {"g": "10", "bf": "2"}),
    ("a.mp4", "libx264", (64, 48), "yuv420p", {"g": "10", "bf": "2"}),
    ("a.avi", "mpeg4", (64, 48), "yuv420p", {"g": "10", "bf": "2"}),
)


def damage(path: Path, seed: int) -> None:
    """Bytes anywhere, and at the beginnings of three packets."""
    rng = np.random.default_rng(seed)
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    starts = [pos + offset for pos, _ in packets[5:8] if pos is not None for offset in range(2, 12)]
    anywhere = rng.integers(packets[3][0], packets[-1][0] + packets[-1][1], 6)
    for place in [*rng.permutation(starts)[: len(starts) // 2 * (seed % 2)], *anywhere]:
        content[place] = rng.integers(256)
    path.write_bytes(content)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form[0])
def test_check_and_reader_see_the_same_of_damaged_clips(tmp_path, form):
    """Not all decoders call a bad packet invalid data: H.263 says "operation not permitted"."""
    name, *how = form
    path = write_noise(tmp_path / name, *how)
    whole = path.read_bytes()
    found = []
    for seed in range(8):
        path.write_bytes(whole)
        damage(path, seed)
        facts, frames = examine(path), read_frames(path, FrameSampling(20))
        bad_packets = facts.bad_packets + (facts.end is not None)
        assert (frames.info.num_frames, frames.num_damaged, frames.num_bad) == (
            facts.num_frames, bad_packets, facts.bad_frames
        )  # fmt: skip
        assert frames.info.duration_s == pytest.approx(facts.duration_s, abs=0.01)
        assert (frames.damage is None) == (facts.damage is None)
        found.append(facts.damage)
    assert sum(damage is not None for damage in found) >= 4


def test_a_frame_that_is_shown_too_early_costs_the_others_nothing(tmp_path):
    """A keyframe is zeros: its GOP is lost but for one frame, which comes before the last one of the GOP before."""
    options = {"g": "13", "bf": "3", "crf": "1", "x264-params": "b-adapt=0:scenecut=0"}
    path = write_clip(tmp_path / "a.mp4", **options)
    with av.open(str(path)) as container:
        keyframe = [packet for packet in container.demux(video=0) if packet.is_keyframe][1]
    content = bytearray(path.read_bytes())
    content[keyframe.pos + 5 : keyframe.pos + keyframe.size] = bytes(keyframe.size - 5)
    path.write_bytes(content)
    frames, facts = read_frames(path, FrameSampling(256)), examine(path)
    assert frames.info.num_frames < 40 and frames.num_damaged == 1
    assert frames.info.duration_s == pytest.approx(4.0) == facts.duration_s
    numbers = np.array(frame_numbers(frames.frames_FHWC))
    is_right = numbers == np.round(np.array(frames.times_s) * 10)
    assert is_right[numbers > 25].all() and len(set(numbers[numbers > 25])) == 14
    assert is_right[numbers < 11].all() and len(set(numbers[numbers < 11])) == 11


def test_a_time_stamp_far_from_all_others_is_not_believed(tmp_path):
    """One of 40 packets says days: the chosen frames are those of the clip without it."""
    path = write_clip(tmp_path / "a.flv", g="20", bf="2")
    want = read_frames(path, FrameSampling(8))
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][25]
    content = bytearray(path.read_bytes())
    content[packet.pos + 7] = 13  # of the tag's time stamp in milliseconds, the highest byte
    path.write_bytes(content)
    assert scan_packets(path).info.duration_s > 1e5
    frames, facts = read_frames(path, FrameSampling(8)), examine(path)
    assert frames.info.duration_s == pytest.approx(4.0, abs=0.01) == pytest.approx(facts.duration_s, abs=0.01)
    assert frame_numbers(frames.frames_FHWC) == list(frames.indices) == list(want.indices)


def test_a_packet_of_a_stream_that_nobody_told_of_is_passed_over(tmp_path):
    """MPEG-TS with another number in one packet's head: PyAV knows no such stream."""
    path = write_clip(tmp_path / "a.ts", g="10", bf="0")
    content = bytearray(path.read_bytes())
    start = max(at for at in range(0, len(content), 188) if content[at + 1 : at + 3] == b"\x41\x00")  # of a picture
    content[start + 2] = 1
    path.write_bytes(content)
    with av.open(str(path)) as container, pytest.raises(IndexError):
        list(container.demux(container.streams.video[0]))
    assert examine(path).num_frames == read_frames(path, FrameSampling(8)).info.num_frames == 39


def stamps_of(packet: bytes) -> list[int]:
    """Where the time stamps of a PES packet stand that begins in this packet of MPEG-TS with PID 256 (13818-1, 2.4)."""
    start = 4 + (1 + packet[4] if packet[3] & 0x20 else 0)
    if packet[1] & 0x5F != 0x41 or packet[2] or packet[start : start + 3] != b"\0\0\1":
        return []
    return [start + 9, start + 14][: {2: 1, 3: 2}.get(packet[start + 7] >> 6, 0)]


def move_stamps(path: Path, number: int, seconds: float, most: int = 2) -> None:
    """Those of one packet of an MPEG-TS; with `most` 1 the one alone by which it is shown."""
    content = bytearray(path.read_bytes())
    found = [
        [at + offset for offset in stamps_of(content[at : at + 188])]
        for at in range(0, len(content), 188)
        if stamps_of(content[at : at + 188])
    ]
    for at in found[number][:most]:
        a, b, c, d, e = content[at : at + 5]
        stamp = ((a >> 1 & 7) << 30 | b << 22 | c >> 1 << 15 | d << 7 | e >> 1) + round(seconds * 90_000)
        high, middle, low = stamp >> 30 << 1, stamp >> 14 & 255 | 1, stamp << 1 & 255 | 1
        content[at : at + 5] = bytes([a & 0xF1 | high, stamp >> 22 & 255, middle, stamp >> 7 & 255, low])
    path.write_bytes(content)


@pytest.mark.parametrize("seconds", [5, -3, 1000, -0.18])
@pytest.mark.parametrize(("num_b", "wrong"), [("0", [36]), ("2", [36]), ("0", [30, 31])])
def test_a_wrong_time_stamp_in_a_transport_stream_moves_no_other_frame(tmp_path, caplog, seconds, num_b, wrong):
    """One of 45 packets, or two; the clock does not stay there, and that is no jump."""
    path = write_clip(tmp_path / "a.ts", num_frames=45, g="15", bf=num_b)
    for number in wrong:
        move_stamps(path, number, seconds)
    frames, facts, scan = read_frames(path, FrameSampling(45)), examine(path), scan_packets(path)
    assert frame_numbers(frames.frames_FHWC) == list(range(45))
    np.testing.assert_allclose(frames.times_s, np.arange(45) / 10, atol=1e-3)
    assert scan.info.num_jumps == facts.num_jumps == 0 and "jumps" not in caplog.text
    assert frames.info.duration_s == pytest.approx(4.5) == facts.duration_s == scan.info.duration_s


@pytest.mark.parametrize("wrong", [None, 9])
@pytest.mark.parametrize("num_b", [("3", "1"), ("1", "3")])
def test_a_keyframe_on_another_clock_moves_no_frame_before_it(tmp_path, num_b, wrong):
    """MPEG-TS by `cat`: all packets of the first part have later stamps than the keyframes of the second, and some of
    them longer delays. A stamp of the first that is wrong by a second is put where most of its own part
    would be, which moves it past few others.
    """
    parts = [
        write_clip(tmp_path / f"{bf}.ts", num_frames=24, g="12", bf=bf, **{"x264-params": "b-adapt=0:scenecut=0"})
        for bf in num_b
    ]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    if wrong is not None:
        move_stamps(path, wrong, 1, most=1)
    frames, facts, scan = read_frames(path, FrameSampling(48)), examine(path), scan_packets(path)
    for times_s in (scan.times_s, frames.times_s):
        off_s = np.abs(np.array(times_s) - np.arange(48) / 10)
        assert off_s.max() < 0.101 and np.count_nonzero(off_s > 1e-3) <= (0 if wrong is None else 3)
    assert frame_numbers(frames.frames_FHWC) == [*range(24), *range(24)]
    assert scan.info.num_jumps == facts.num_jumps == 1
    assert scan.info.duration_s == pytest.approx(4.8) == facts.duration_s == frames.info.duration_s


def test_frames_of_an_interlaced_clip_are_missed(tmp_path):
    """One packet a frame, two fields in it: of the first 20 of 40 no keyframe can be decoded."""
    path = write_clip(tmp_path / "a.mkv", g="20", bf="0", **{"x264-params": "tff=1:scenecut=0"})
    assert (examine(path).damage, read_frames(path, FrameSampling(8)).damage) == (None, None)
    with av.open(str(path)) as container:
        keyframe = bytes(next(container.demux(video=0)))
    path.write_bytes(path.read_bytes().replace(keyframe, bytes(len(keyframe))))
    facts, frames = examine(path), read_frames(path, FrameSampling(8))
    assert facts.num_frames == frames.info.num_frames == 40 - frames.num_missing < 30
    assert f"packets of 40 frames, {facts.num_frames} can be decoded" in str(facts.damage)


def test_two_packets_may_make_a_frame():
    """Fields in packets of their own have half a frame's step, the same time stamp, or none; else each is a frame."""
    frames = [0, 3600, 7200, None, 14_400]
    assert come_in_pairs(np.arange(0, 18_000, 1800), frames)
    assert come_in_pairs(np.arange(0, 18_000, 3600).repeat(2), frames)
    assert come_in_pairs(np.zeros(10, np.int64), [None] * 5)
    assert not come_in_pairs(np.arange(0, 36_000, 3600), frames)


@pytest.mark.parametrize("wrong", [(20,), (20, 21, 22), (15, 19, 23, 27)])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_wrong_time_stamps_of_b_frames_move_nothing(tmp_path, suffix, wrong):
    """Five seconds too late: also where only some frames are decoded, which lie in other GOPs."""
    source, path = write_clip(tmp_path / "a.mp4", num_frames=48, g="12", bf="2"), tmp_path / f"wrong.{suffix}"
    with av.open(str(source)) as opened, av.open(str(path), "w") as container:
        stream = opened.streams.video[0]
        copy = container.add_stream_from_template(stream)
        for number, packet in enumerate(packet for packet in opened.demux(stream) if packet.size):
            packet.pts += round(5 / packet.time_base) if number in wrong else 0
            packet.stream = copy
            container.mux(packet)
    for count in (3, 8, 48):
        frames = read_frames(path, FrameSampling(count))
        assert frame_numbers(frames.frames_FHWC) == list(frames.indices)
        np.testing.assert_allclose(frames.times_s, np.array(frames.indices) / 10, atol=2e-3)
        assert frames.indices[-1] > 36


def test_a_recording_cut_in_its_middle_begins_with_the_first_frame_that_is_shown(tmp_path):
    """MPEG-TS from a B-frame before a keyframe on: few frames have the indices and times that all of them have."""
    path = write_clip(tmp_path / "a.ts", num_frames=48, g="12", bf="2", **{"x264-params": "b-adapt=0:scenecut=0"})
    content = path.read_bytes()
    starts = [at for at in range(0, len(content), 188) if stamps_of(content[at : at + 188])]
    path.write_bytes(content[: 3 * 188] + content[starts[10] :])
    whole = read_frames(path, FrameSampling(48))
    few, facts = read_frames(path, FrameSampling(5)), examine(path)
    assert scan_packets(path).info.num_frames > facts.num_frames == few.info.num_frames == whole.info.num_frames == 36
    assert frame_numbers(few.frames_FHWC) == [12 + index for index in few.indices]
    np.testing.assert_allclose(few.times_s, np.array(few.indices) / 10, atol=1e-3)


def test_empty_packets_are_no_damage():
    """Theora of 20 pictures, of which 14 are shown on. By FFmpeg 5.1 with libtheora, from grey 64x48 pictures as
    conftest's: `ffmpeg -f rawvideo -pix_fmt rgb24 -s 64x48 -r 25 -i - -c:v libtheora -q:v 10 repeated_frames.ogv`.
    """
    path = Path(__file__).with_name("repeated_frames.ogv")
    frames, facts = read_frames(path, FrameSampling(6)), examine(path)
    assert frame_numbers(frames.frames_FHWC)[:5] == [0, 1, 2, 3, 4] == list(frames.indices)[:5]
    np.testing.assert_allclose(np.unique(frames.times_s), np.arange(len(set(frames.times_s))) * 0.12, atol=1e-3)
    assert (facts.num_frames, facts.damage, frames.damage) == (6, None, None)
