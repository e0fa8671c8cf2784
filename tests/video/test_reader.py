import gc
import json
import pickle
import sys
import tracemalloc
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest

from tests.video.conftest import write_flipped
from vlm_crash.video import FrameSampling, UnreadableClipError, probe, read_frames
from vlm_crash.video.preflight import examine

CASES = json.loads((Path(__file__).parents[1] / "parity/frame_indices.json").read_text())["cases"]


def test_the_middle_frames(make_clip, numbers):
    frames = read_frames(make_clip(num_frames=40), FrameSampling(8))
    assert frames.reader == "pyav"
    assert frames.indices == (2, 7, 12, 17, 22, 27, 32, 37)
    assert numbers(frames.frames_FHWC) == list(frames.indices)
    assert frames.frames_FHWC.shape == (8, 48, 64, 3)
    assert frames.frames_FHWC.dtype == np.uint8
    np.testing.assert_allclose(frames.times_s, np.array(frames.indices) / 10, atol=1e-6)


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_the_cards_frames(make_clip, numbers, suffix):
    path = make_clip(f"clip{suffix}", num_frames=40, codec="gif" if suffix == ".gif" else "libx264")
    frames = read_frames(path, FrameSampling(8, "card"))
    assert frames.indices == (2, 7, 12, 17, 22, 26, 31, 36)
    assert numbers(frames.frames_FHWC) == list(frames.indices)


@pytest.mark.parametrize("case", [case for case in CASES if case["total_frames"] <= 50 and not case["clip"]])
def test_the_duration_that_training_was_told(case, make_clip):
    path = make_clip(num_frames=case["total_frames"], fps=int(case["fps"]))
    assert read_frames(path, FrameSampling(1)).info.duration_s == pytest.approx(case["train_reader_duration"], abs=1e-3)


def test_probe_says_what_a_clip_is(make_clip):
    info = probe(make_clip(num_frames=25, fps=5))
    assert (info.num_frames, info.fps, info.width, info.height, info.codec) == (25, 5.0, 64, 48, "h264")
    assert info.duration_s == pytest.approx(5.0)


def test_short_clip_repeats_its_last_frame(make_clip, numbers):
    frames = read_frames(make_clip(num_frames=3), FrameSampling(5))
    assert numbers(frames.frames_FHWC) == [0, 1, 2, 2, 2]
    assert probe(make_clip("one.mp4", num_frames=1)).duration_s == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("a.gif", {"codec": "gif"}),
        ("a.ts", {}),
        ("a.mkv", {}),
        ("b_frames.avi", {"codec": "mpeg4", "bf": "2", "b": "8000000", "qmin": "1", "qmax": "2"}),
        ("open_gop.mp4", {"g": "8", "x264-params": "open-gop=1:bframes=3:b-adapt=0:scenecut=0"}),
    ],
)
def test_what_decord_gets_wrong(make_clip, numbers, name, settings):
    frames = read_frames(make_clip(name, num_frames=40, **settings), FrameSampling(16))
    assert frames.reader == "pyav"
    assert numbers(frames.frames_FHWC) == list(frames.indices)
    assert frames.info.num_frames == 40


@pytest.mark.parametrize("options", [{}, {"bf": "2"}, {"g": "5"}, {"pix_fmt": "yuv444p"}, {"colorspace": "bt709"}])
def test_the_pixels_of_decord_bit_for_bit(make_clip, options):
    decord = pytest.importorskip("decord")
    path = make_clip(num_frames=40, **options)
    frames = read_frames(path, FrameSampling(8))
    old = decord.VideoReader(str(path), num_threads=1).get_batch(list(frames.indices)).asnumpy()
    np.testing.assert_array_equal(frames.frames_FHWC, old)


def test_works_where_decord_is_not_installed(make_clip, monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", None)
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    for reader in ("auto", "pyav"):
        assert read_frames(make_clip(), FrameSampling(4), reader).reader == "pyav"


def test_truncated_clip_counts_what_can_be_decoded(make_clip, numbers, caplog):
    whole = make_clip(num_frames=40, movflags="faststart", g="1", crf="0")
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    with caplog.at_level("WARNING"):
        frames = read_frames(whole, FrameSampling(8))
    assert frames.reader == "pyav"
    assert 5 < frames.info.num_frames < 35
    assert frames.info.duration_s < 3.6
    assert max(frames.indices) < frames.info.num_frames
    assert numbers(frames.frames_FHWC)[:-1] == list(frames.indices)[:-1]  # the last one may be half a picture


def test_damaged_packets_shorten_the_clip_and_are_said(make_clip, numbers, caplog):
    """The second half of the pictures is zeros, as after a copy that was cut short; the index is whole."""
    path = make_clip(num_frames=40, movflags="faststart", g="1", crf="0")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10] + bytes(len(content) - len(content) * 6 // 10))
    with caplog.at_level("WARNING"):
        frames = read_frames(path, FrameSampling(8))
    count = frames.info.num_frames
    assert 5 < count < 35
    assert f"{count} of 40 frames can be decoded" in caplog.text
    assert frames.info.duration_s == pytest.approx(count / 10)
    assert max(frames.indices) < count
    assert numbers(frames.frames_FHWC)[:-1] == list(frames.indices)[:-1]


def test_damaged_frames_are_counted_and_said(tmp_path, caplog):
    """They come in their number, so that only the decoder's word tells; the same as `check` counts."""
    path = write_flipped(tmp_path / "flipped.mp4")
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        bad = {number for number, frame in enumerate(container.decode(video=0)) if frame.is_corrupt}
    with caplog.at_level("WARNING"):
        frames = read_frames(path, FrameSampling(8))
    assert frames.info.num_frames == 60 and frames.num_missing == 0
    assert frames.num_bad == len(bad) == examine(path).bad_frames > 0
    assert 0 < frames.num_bad_chosen == len(bad & set(frames.indices)) < 8
    said = f"{len(bad)} of 60 frames show damage, {frames.num_bad_chosen} of the 8 chosen ones"
    assert f"damaged: {said}" in caplog.text and frames.damage == said


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "the file is empty"), (b"no video at all\n" * 9, "not a video"), (None, "no such file")],
)
def test_unreadable_clip_has_one_clean_line(tmp_path, content, reason):
    path = tmp_path / "1.mp4"
    if content is not None:
        path.write_bytes(content)
    for call in (lambda: probe(path), lambda: read_frames(path, FrameSampling(4))):
        with pytest.raises(UnreadableClipError, match=reason) as caught:
            call()
        assert caught.value.path == path
        assert "\n" not in str(caught.value)


def test_folders_loops_and_odd_names(tmp_path, make_clip):
    (tmp_path / "x.mp4").mkdir()
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    for bad in (tmp_path / "x.mp4", tmp_path / "loop.mp4", tmp_path / "nul\0.mp4"):
        with pytest.raises(UnreadableClipError):
            read_frames(bad, FrameSampling(2))
    for name in ("-dash.mp4", "two words.mp4", "co:lon.mp4", "new\nline.mp4", "per%03d.mp4", "ünï_事故_🚗.mp4"):
        assert read_frames(make_clip("plain.mp4").rename(tmp_path / name), FrameSampling(2)).info.num_frames == 40


def test_relative_name_with_a_colon(tmp_path, make_clip, monkeypatch):
    """FFmpeg takes "co:lon.mp4" for a protocol."""
    make_clip("co:lon.mp4")
    monkeypatch.chdir(tmp_path)
    assert read_frames("co:lon.mp4", FrameSampling(2)).info.num_frames == 40


def test_only_chosen_frames_are_kept(make_clip):
    """4 of 50 frames, and what stacking them needs: far below all 50."""
    path = make_clip("a.mkv", num_frames=50)
    tracemalloc.start()
    read_frames(path, FrameSampling(4))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 64 * 48 * 3


@pytest.mark.parametrize("name", ["a.mp4", "read_through.gif", "cut.mp4"])
def test_nothing_waits_for_pythons_collector(make_clip, name):
    """It does not know how much memory a decoder and its frames take, so a clip must let go of them by itself."""
    path = make_clip(name, codec="gif" if name.endswith(".gif") else "libx264")
    if name == "cut.mp4":
        path.write_bytes(path.read_bytes()[:2000])

    def of_pyav() -> list[str]:
        kinds = map(type, gc.get_objects())
        return sorted(kind.__name__ for kind in kinds if str(kind.__module__).startswith("av."))

    def read() -> None:
        with suppress(UnreadableClipError):
            read_frames(path, FrameSampling(4))

    read()  # some things are made once
    gc.collect()
    gc.disable()
    try:
        before = of_pyav()
        read()
        assert of_pyav() == before
    finally:
        gc.enable()


def test_error_survives_pickling():
    error = pickle.loads(pickle.dumps(UnreadableClipError("a.mp4", "broken")))
    assert (error.path.name, error.reason) == ("a.mp4", "broken")


def test_a_window_that_the_clip_does_not_have(make_clip):
    frames = read_frames(make_clip(num_frames=40), FrameSampling(4, start_s=1.0, end_s=2.5))
    assert 1.0 <= frames.times_s[0] < frames.times_s[-1] < 2.5
    with pytest.raises(UnreadableClipError, match=r"begins at 9 s, and it ends at 4\.00 s"):
        read_frames(make_clip(num_frames=40), FrameSampling(2, start_s=9.0))
