"""Long clips: only what is needed is decoded and kept, and no frame differs from those of reading through."""

import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest

from tests.video.conftest import call_all_keyframes, write_clip
from vlm_crash.video import keyframes, reader
from vlm_crash.video.container import scan_packets
from vlm_crash.video.frame_sampling import FrameSampling, middle_frame_indices
from vlm_crash.video.keyframes import read_needed
from vlm_crash.video.pixels import Chosen

TORTURE = Path(__file__).resolve().parents[3] / "shared/clips/torture"
HOURS = {"num_frames": 12_600, "fps": 1, "gop": 10}  # 3.5 hours
ODD = (
    ("a.ts", {"g": "5", "bf": "0"}),
    ("b_frames.ts", {"g": "5", "bf": "2"}),
    ("a.mkv", {"g": "5"}),
    ("b_frames.mkv", {"g": "6", "bf": "2"}),
    ("open_gop.mp4", {"g": "8", "x264-params": "open-gop=1:bframes=3:b-adapt=0:scenecut=0"}),
    ("a.webm", {"codec": "libvpx-vp9", "g": "5"}),
)


def read_through(path: Path, indices: list[int]) -> np.ndarray:
    chosen = Chosen(indices)
    for count, frame in enumerate(reader._Decoding(path).frames()):
        chosen.put(count, frame)
    return chosen.frames_FHWC


def choices(num_frames: int) -> list[list[int]]:
    """The ends, frames far from each other, neighbours, the same one twice, in no order."""
    middle = num_frames // 2
    return [[0], [num_frames - 1], middle_frame_indices(num_frames, 4), [middle, middle + 1, middle], [middle, 1]]


@pytest.fixture(params=[1, 2000], ids=["seek", "read on"])
def way(request, monkeypatch):
    """How the decoder gets to the next keyframe."""
    monkeypatch.setattr(keyframes, "MIN_SEEK_FRAMES", request.param)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("name", "settings"), ODD, ids=lambda value: value if isinstance(value, str) else "")
def test_the_same_frames_as_reading_through(make_clip, numbers, name, settings):
    path = make_clip(name, num_frames=40, **settings)
    scan = scan_packets(path)
    for indices in choices(40):
        found = read_needed(scan, indices)
        assert found is not None
        assert numbers(found) == indices
        np.testing.assert_array_equal(found, read_through(path, indices))


@pytest.mark.usefixtures("way")
@pytest.mark.skipif(not TORTURE.is_dir(), reason="../shared/clips is absent: no odd clips to try")
@pytest.mark.parametrize(
    "name",
    [
        "dashcam.ts", "dashcam_gop1s_noB.ts", "h264.mkv", "hevc_opengop_1s.mp4", "opengop_bframes.mp4",
        "wmv2.wmv", "vfr.mp4", "start_offset_1000s.ts", "two_video_streams.mp4", "rotation90.mp4",
    ],
)  # fmt: skip
def test_the_same_frames_of_odd_clips(name):
    scan = scan_packets(TORTURE / name)
    indices = [*middle_frame_indices(scan.info.num_frames, 4), scan.info.num_frames - 1]
    found = read_needed(scan, indices)
    assert found is not None
    np.testing.assert_array_equal(found, read_through(TORTURE / name, indices))


@pytest.mark.usefixtures("way")
def test_a_damaged_clip_is_read_through(make_clip):
    """Zeros in its middle: frames are lost, and what follows has another index than its packets say."""
    path = make_clip("a.mkv", num_frames=40, g="2", crf="0")
    content = path.read_bytes()
    third = len(content) // 3
    path.write_bytes(content[:third] + bytes(third) + content[2 * third :])
    frames = reader.read_frames(path, FrameSampling(4))
    count = frames.info.num_frames
    assert count < 40
    np.testing.assert_array_equal(frames.frames_FHWC, read_through(path, list(frames.indices)))


def test_frames_that_are_lost_before_a_wanted_one_are_damage(make_clip):
    """HEVC, whose decoder passes over a unit that it does not know, and over frames that look at it."""
    path = make_clip(num_frames=40, codec="libx265", **{"x265-params": "keyint=10:bframes=0:scenecut=0:log-level=0"})
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        lost = next(packet for packet in container.demux(video=0) if packet.pts * packet.time_base >= 1.5)
    content[lost.pos + 4] = 48 << 1  # behind its length: the type of a unit that the standard leaves to others
    path.write_bytes(content)
    assert read_needed(scan_packets(path), [8, 32]) is not None
    assert read_needed(scan_packets(path), [22]) is None
    assert reader.read_frames(path, FrameSampling(4)).damage == "35 of 40 frames can be decoded"


class Decoded:
    """Counts the frames that decoders give, and the packets that they are given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.num_frames = self.num_packets = 0
        plain = keyframes._Decoder._decoded

        def counted(decoder, packet):
            frames = plain(decoder, packet)
            self.num_packets += packet.size > 0
            self.num_frames += len(frames)
            return frames

        monkeypatch.setattr(keyframes._Decoder, "_decoded", counted)


@pytest.mark.usefixtures("way")
def test_what_lies_between_keyframes_is_not_decoded(make_clip, monkeypatch):
    scan = scan_packets(make_clip("a.mkv", num_frames=40, g="5", bf="0"))
    decoded = Decoded(monkeypatch)
    assert read_needed(scan, [20]) is not None
    assert decoded.num_packets <= 5 + 1 + 5 + 2  # from frame 15 on, or one keyframe before; what the decoder holds back
    decoded.num_packets = 0
    assert read_needed(scan, [0, 1, 20, 21]) is not None
    assert decoded.num_packets <= 2 + 7 + 5 + 2 * 2
    decoded.num_packets = 0
    assert read_needed(scan, list(range(0, 40, 4))) is not None
    assert 36 <= decoded.num_packets <= 40


def test_frames_that_nobody_refers_to_are_not_decoded(make_clip, monkeypatch, numbers):
    """B-frames without a pyramid: two of three; the wanted ones among them are."""
    options = {"x264-params": "bframes=2:b-adapt=0:b-pyramid=none:scenecut=0"}
    path = make_clip("a.mp4", num_frames=40, g="40", **options)
    decoded = Decoded(monkeypatch)
    found = read_needed(scan_packets(path), [10, 38])
    assert found is not None and numbers(found) == [10, 38]
    assert 13 <= decoded.num_frames <= 17
    assert decoded.num_packets >= 38


def test_other_codecs_decode_them_all(make_clip, monkeypatch, numbers):
    path = make_clip("a.mkv", num_frames=40, codec="mpeg4", bf="2", g="40", b="8000000")
    decoded = Decoded(monkeypatch)
    found = read_needed(scan_packets(path), [10, 38])
    if found is not None:
        assert numbers(found) == [10, 38]
        assert decoded.num_frames >= 38


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("codec", ["msmpeg4", "wmv2", "flv"])
def test_packets_that_only_the_container_calls_keyframes(make_clip, numbers, codec):
    """FFmpeg has no parser of these codecs that would correct it: what is entered there is no picture."""
    path = call_all_keyframes(make_clip("a.avi", num_frames=40, codec=codec, g="12", b="8000000"))
    scan = scan_packets(path)
    assert scan.keyframes is not None and len(scan.keyframes) == 40
    assert read_needed(scan, [21, 34]) is None
    frames = reader.read_frames(path, FrameSampling(4))
    assert numbers(frames.frames_FHWC) == list(frames.indices) == middle_frame_indices(40, 4)
    assert frames.damage is None


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *ODD[:2], *ODD[4:], ("h264.mp4", {"g": "5", "bf": "2"}),
        ("open_gop.mp4", {"codec": "libx265", "x265-params": "keyint=5:open-gop=1:bframes=2:scenecut=0:log-level=0"}),
        ("av1.mp4", {"codec": "libsvtav1", "g": "5", "preset": "10"}),
        ("mpeg2.ts", {"codec": "mpeg2video", "g": "5", "bf": "2"}),
        ("mpeg4.mp4", {"codec": "mpeg4", "g": "5", "bf": "2"}),
        ("wmv2.wmv", {"codec": "wmv2", "g": "5"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_usual_clips_are_entered(make_clip, monkeypatch, name, settings):
    """Their decoders call a keyframe what the container calls one; nothing of them is read through."""
    scan = scan_packets(make_clip(name, num_frames=40, **settings))
    decoded = Decoded(monkeypatch)
    assert read_needed(scan, [32]) is not None
    assert decoded.num_packets < 25


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    "options",
    [
        {"g": "8", "bf": "3", "x264-params": "b-adapt=0:scenecut=0"},
        {"codec": "mpeg4", "g": "5", "bf": "2", "b": "8000000"},
    ],
    ids=["H.264", "MPEG-4"],
)
def test_time_stamps_of_packets_are_not_those_of_frames(make_clip, numbers, options):
    """B-frames in AVI, where FFmpeg counts packets in their own order. Without them it may be entered."""
    path = make_clip("b_frames.avi", num_frames=40, **options)
    for indices in choices(40):
        assert read_needed(scan_packets(path), indices) is None
    frames = reader.read_frames(path, FrameSampling(7))
    assert numbers(frames.frames_FHWC) == list(frames.indices) == middle_frame_indices(40, 7)
    np.testing.assert_allclose(frames.times_s, np.array(frames.indices) / 10, atol=1e-6)
    assert read_needed(scan_packets(make_clip("a.avi", num_frames=40, g="8", bf="0")), [9, 30]) is not None


def test_no_time_stamps_no_seek(make_clip):
    raw = make_clip("a.h264", num_frames=40, g="5")
    assert scan_packets(raw).keyframes is None


# ------------------------------------------------------------------------------------------------------- hours


def write_numbered(path: Path, num_frames: int, fps: int, gop: int) -> Path:
    """64x16; the frame's number in 16 bars of four columns, the least significant bit on the left."""
    with av.open(str(path), "w") as container:
        options = {"preset": "ultrafast", "g": str(gop), "crf": "20"}
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 16, "gray"
        for number in range(num_frames):
            bars = np.array([255 * (number >> bit & 1) for bit in range(16)], np.uint8)
            pixels = np.broadcast_to(bars.repeat(4), (16, 64))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="gray")))
        container.mux(stream.encode())
    return path


def bars_number(frame_HWC: np.ndarray) -> int:
    levels = frame_HWC.mean(axis=(0, 2)).reshape(16, 4).mean(axis=1)
    return sum(1 << bit for bit, level in enumerate(levels) if level > 127)


@pytest.fixture(scope="module")
def hours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 3.5 hours as long.mkv and, the same packets, as long.mp4."""
    folder = tmp_path_factory.mktemp("hours")
    write_numbered(folder / "long.mp4", **HOURS)
    with av.open(str(folder / "long.mp4")) as source, av.open(str(folder / "long.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return folder


@pytest.mark.parametrize("num_frames", [8, 256])
@pytest.mark.parametrize("name", ["long.mkv", "long.mp4"])
def test_hours_are_not_decoded_and_not_kept(hours, monkeypatch, name, num_frames):
    decoded = Decoded(monkeypatch)
    reader.read_frames(hours / name, FrameSampling(1))  # what is imported on first use is no clip's memory
    decoded.num_frames = 0
    tracemalloc.start()
    frames = reader.read_frames(hours / name, FrameSampling(num_frames))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert frames.indices == tuple(middle_frame_indices(12_600, num_frames))
    assert [bars_number(frame) for frame in frames.frames_FHWC] == list(frames.indices)
    np.testing.assert_allclose(frames.times_s, frames.indices, atol=1e-6)
    assert frames.info.duration_s == pytest.approx(12_600)
    assert peak < frames.frames_FHWC.nbytes + 80 * 12_600 + 200_000
    assert num_frames <= decoded.num_frames <= num_frames * 2 * HOURS["gop"]


def test_packets_take_few_bytes(hours):
    tracemalloc.start()
    scan = scan_packets(hours / "long.mkv")
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert scan.info.num_frames == 12_600
    assert kept < 24 * 12_600 and peak < 80 * 12_600


def test_256_frames_of_a_short_clip_repeat_its_last(tmp_path):
    for name in ("short.mp4", "short.mkv"):
        frames = reader.read_frames(write_clip(tmp_path / name, num_frames=3), FrameSampling(256))
        assert frames.indices == (0, 1, *[2] * 254)
        assert (frames.frames_FHWC[3:] == frames.frames_FHWC[2]).all()
