"""Frames from the cache are those that reading gives; what is damaged, changed or full costs time and nothing else."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.video.conftest import write_clip, write_flipped
from vlm_crash.video import cache_folder, frame_cache
from vlm_crash.video.cache_folder import CacheFolder, TooLargeError
from vlm_crash.video.frame_cache import CacheSettings, FrameCache
from vlm_crash.video.frame_formats import FRAME_FORMATS
from vlm_crash.video.frame_sampling import FrameSampling
from vlm_crash.video.image_transform import resized, to_pixel_values
from vlm_crash.video.reader import Frames, read_frames

SIZE = 56
#: Bytes of disk of four raw frames of that size, and of what is known of their clip.
ENTRY = 45056


class Decoder:
    """Reads a clip, and counts how often."""

    def __init__(self, cache: FrameCache, clip: Path, num_frames: int = 4) -> None:
        self.cache, self.clip, self.num_frames, self.count = cache, clip, num_frames, 0

    def decode(self) -> Frames:
        self.count += 1
        return read_frames(self.clip, FrameSampling(self.num_frames))

    def __call__(self, **changes: Any) -> Frames:
        rule = {"rule": "middle", "num_frames": self.num_frames}
        asked = {"sampling": rule, "image_size": SIZE, "reader": "auto", **changes}
        return self.cache.read(self.clip, decode=self.decode, **asked)


@pytest.fixture
def decoder(make_clip, tmp_path: Path) -> Callable[..., Decoder]:
    def make(format: str = "lz4", name: str = "clip.mp4", **settings: Any) -> Decoder:
        clip = tmp_path / name
        if not clip.exists():
            make_clip(name)
        return Decoder(FrameCache(CacheSettings(tmp_path / "cache", format=format, **settings)), clip)

    return make


@pytest.fixture(autouse=True)
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clips were written a minute ago, as far as the cache can tell."""
    now = time.time
    monkeypatch.setattr(frame_cache, "_now", lambda: now() + 60)


def entries(folder: Path, kind: str = "frames") -> list[Path]:
    return sorted(path for path in (folder / kind).rglob("*") if path.is_file())


@pytest.mark.parametrize("format", [name for name, kept in FRAME_FORMATS.items() if kept.is_lossless])
def test_lossless_frames_are_those_that_were_read(decoder, format):
    read = decoder(format)
    plain = read.decode()
    first, second = read(), read()
    assert read.count == 2  # one of them outside of the cache
    assert np.array_equal(first.frames_FHWC, second.frames_FHWC)
    want, got = (to_pixel_values(frames.frames_FHWC, SIZE) for frames in (plain, second))
    assert got.equal(want)
    for name in ("indices", "times_s", "info", "reader"):
        assert getattr(second, name) == getattr(plain, name)
    assert second.frames_FHWC.flags.writeable


@pytest.mark.parametrize("format", sorted(FRAME_FORMATS))
def test_a_low_clip_is_kept_without_the_rows_that_resizing_adds(decoder, tmp_path, format):
    """48 rows for a square of 96: half the pixels, and the frames are the same."""
    read = decoder(format)
    want = resized(read.decode().frames_FHWC, 96)
    for _ in range(2):
        got = read(image_size=96).frames_FHWC
        assert np.abs(got.astype(int) - want).max() <= (0 if FRAME_FORMATS[format].is_lossless else 12)
    if format == "raw":
        (path,) = entries(tmp_path / "cache")
        assert path.stat().st_size - 4 * 48 * 96 * 3 < 1000


def test_jpeg_is_close_and_the_same_each_time(decoder):
    read = decoder("jpeg")
    plain = decoder("raw")().frames_FHWC.astype(int)
    first, second = read().frames_FHWC, read().frames_FHWC
    assert np.array_equal(first, second)
    assert 0 < np.abs(first - plain).max() <= 12


@pytest.mark.parametrize("name", sorted(FRAME_FORMATS))
def test_formats_on_noise_of_an_odd_size(name):
    """Noise has every difference between neighbours, wrapped around 256, too; what is written is left as it was."""
    frames_FHWC = np.random.default_rng(0).integers(0, 256, (3, 31, 31, 3), dtype=np.uint8)
    planes = np.ascontiguousarray(frames_FHWC.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    kept = FRAME_FORMATS[name]
    for given in (frames_FHWC, planes):
        parts = kept.encode(given)
        payload = np.frombuffer(b"".join(parts), np.uint8)
        back = kept.decode(payload, [len(part) for part in parts], given.shape)
        assert np.array_equal(planes, frames_FHWC)
        assert back.shape == frames_FHWC.shape
        assert np.array_equal(back, frames_FHWC) == kept.is_lossless


def test_damage_is_kept_and_said_each_time(decoder, tmp_path, caplog):
    write_flipped(tmp_path / "flipped.mp4")
    read = decoder(name="flipped.mp4")
    first, second = read(), read()
    assert read.count == 1 and first.num_bad_chosen > 0
    assert (second.num_bad, second.num_bad_chosen, second.damage) == (
        first.num_bad, first.num_bad_chosen, first.damage,
    )  # fmt: skip
    assert caplog.text.count(f"damaged: {first.damage}") == 2


def test_what_decides_the_pixels_decides_the_entry(decoder):
    read = decoder()
    changes: list[dict[str, Any]] = [
        {}, {"sampling": {"rule": "card", "num_frames": 4}}, {"image_size": SIZE + 1}, {"reader": "decord"},
    ]  # fmt: skip
    for number, change in enumerate(changes, start=1):
        read(**change)
        read(**change)
        assert read.count == number
    other = decoder("raw")
    other()
    assert other.count == 1


def test_another_version_of_a_library_reads_again(decoder, monkeypatch):
    read = decoder()
    read()
    monkeypatch.setattr(frame_cache, "_versions", lambda: {"av": "0"})
    read()
    assert read.count == 2


def test_what_decides_the_pixels_is_in_the_versions():
    """Libraries, and our own code: everything of video/ that reading or resizing in this process imports."""
    versions = frame_cache._versions()
    assert {"av", "decord", "torch", "torchcodec", "torchvision", "vlm_crash", "code"} == set(versions)
    assert versions["torch"] == version("torch")
    script = "import sys, vlm_crash.video.reader, vlm_crash.video.image_transform; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    ours = {name.rpartition(".")[2] for name in loaded if name.startswith("vlm_crash.video.")}
    assert "keyframes" in ours
    assert ours - set(frame_cache._DECIDING_CODE) == {"clip_files", "counting"}  # they find and count them


@pytest.mark.parametrize("name", ["reader", "pixels", "image_transform"])
def test_another_line_of_our_code_reads_again(tmp_path, name):
    copy = shutil.copytree(Path(frame_cache.__file__).parent, tmp_path / "video")
    before = frame_cache._code_hash(copy)
    assert before == frame_cache._code_hash(Path(frame_cache.__file__).parent)
    with (copy / f"{name}.py").open("a", encoding="utf-8") as file:
        file.write("_X = 1\n")
    assert frame_cache._code_hash(copy) != before


def test_a_changed_clip_is_read_again_and_a_renamed_one_is_not(decoder, tmp_path, numbers):
    read = decoder()
    assert numbers(read().frames_FHWC) == [4, 14, 24, 34]
    renamed = Decoder(read.cache, read.clip.rename(tmp_path / "renamed.mp4"))
    assert numbers(renamed().frames_FHWC) == [4, 14, 24, 34]
    assert renamed.count == 0
    # Another clip of the same name, size and time: only inode and ctime tell.
    status, content = renamed.clip.stat(), renamed.clip.read_bytes()
    write_clip(renamed.clip, num_frames=20)
    shorter = renamed.clip.read_bytes()
    renamed.clip.write_bytes(shorter + bytes(len(content) - len(shorter)))
    os.utime(renamed.clip, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (renamed.clip.stat().st_size, renamed.clip.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert numbers(renamed().frames_FHWC) == [2, 7, 12, 17]


def test_a_clip_is_hashed_once_and_not_trusted_while_it_is_new(decoder, monkeypatch):
    read = decoder()
    hashed: list[Path] = []
    plain = frame_cache.content_hash
    monkeypatch.setattr(
        frame_cache, "content_hash", lambda path, limit_s: (hashed.append(path), plain(path, limit_s))[1]
    )
    read()
    read()
    assert len(hashed) == 1
    monkeypatch.setattr(frame_cache, "_now", time.time)
    os.utime(read.clip)  # changed just now
    read()
    read()
    assert len(hashed) == 3
    assert read.count == 1


def test_what_is_known_of_another_file_is_not_believed(decoder, make_clip, tmp_path, numbers):
    make_clip("b.mp4", num_frames=12)
    reads = [decoder("raw", name) for name in ("a.mp4", "b.mp4")]
    right = [numbers(read().frames_FHWC) for read in reads]
    one, other = entries(tmp_path / "cache", "clips")
    one.write_bytes(other.read_bytes())
    assert [numbers(read().frames_FHWC) for read in reads] == right
    assert right[0] != right[1] and [read.count for read in reads] == [1, 1]


def test_a_book_that_cannot_be_is_written_anew(tmp_path):
    folder = CacheFolder(tmp_path, 2**20)
    for number, book in enumerate(("-5", "", "abc")):
        (tmp_path / "size").write_text(book)
        folder.write("frames", f"{number:040x}", [b"x" * 5000])
        assert int((tmp_path / "size").read_text()) == folder.size() == (number + 1) * 8192


def test_a_clip_that_changes_while_it_is_read_is_not_kept(decoder, tmp_path):
    read = decoder()
    plain = read.decode

    def decode() -> Frames:
        frames = plain()
        os.utime(read.clip, ns=(1, 1))
        return frames

    read.decode = decode
    read()
    assert entries(tmp_path / "cache") == []


@pytest.mark.parametrize("place", [0, 9, 12, 14, 40, -1, None])
def test_a_damaged_entry_is_named_removed_and_made_again(decoder, tmp_path, caplog, place):
    read = decoder()
    want = read().frames_FHWC
    (path,) = entries(tmp_path / "cache")
    content = bytearray(path.read_bytes())
    if place is None:
        del content[7:]
    else:
        content[place] ^= 0x10
    path.write_bytes(content)
    assert np.array_equal(read().frames_FHWC, want)
    assert read.count == 2
    assert "clip.mp4: its cached frames cannot be used" in caplog.text
    assert read().frames_FHWC is not None and read.count == 2


def test_the_limit_holds_and_what_was_not_used_for_longest_goes(decoder, tmp_path):
    reads = [decoder("raw", f"{number}.mp4", max_gib=4 * ENTRY / 2**30) for number in range(6)]
    for number, read in enumerate(reads):
        read.clip.write_bytes(read.clip.read_bytes() + bytes([number]))  # of its own content
        read()
        reads[0]()  # used again and again
        files = [path for kind in ("frames", "clips") for path in entries(tmp_path / "cache", kind)]
        assert sum(-(-path.stat().st_size // 4096) * 4096 for path in files) <= 4 * ENTRY
        for path in files:  # each round is a second later, so that the order is certain
            os.utime(path, (path.stat().st_mtime - 1,) * 2)
    assert [read.count for read in reads] == [1] * 6
    for number in (0, 5):  # the one in use, the newest
        reads[number]()
        assert reads[number].count == 1
    reads[1]()
    assert reads[1].count == 2


def test_a_clip_larger_than_the_cache_is_said_once_and_others_are_kept(decoder, caplog):
    small, large = decoder("raw", max_gib=ENTRY / 2**30), decoder("raw")
    large.cache, large.num_frames = small.cache, 40
    for read in (large, large, small, small):
        read()
    assert (large.count, small.count) == (2, 1)
    assert caplog.text.count("a clip's frames take 0.363 MiB, more than the 0.043 MiB that the frame cache") == 1
    assert "set --data.cache.max_gib higher" in caplog.text


def test_a_file_larger_than_the_cache_never_touches_the_disk(tmp_path):
    with pytest.raises(TooLargeError):
        CacheFolder(tmp_path / "cache", 8192).write("frames", "a" * 40, [b"x" * 8193])
    assert not (tmp_path / "cache").exists()


def test_files_of_others_stay(tmp_path):
    folder = CacheFolder(tmp_path, 8192)
    others = [tmp_path / "frames/aa/notes.txt", tmp_path / "mine.txt", tmp_path / "clips/x.mp4"]
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 5000)
        os.utime(path, (0, 0))
    dead = tmp_path / "frames" / "aa" / f"{'a' * 40}.{'b' * 32}.tmp"
    dead.write_bytes(b"x")
    os.utime(dead, (0, 0))
    for number in range(4):
        folder.write("frames", f"{number:040x}", [b"x" * 4096])
    assert all(path.exists() for path in others)
    assert not dead.exists()
    assert folder.size() <= 8192


@pytest.mark.parametrize("failing", ["write", "space", "folder"])
def test_a_full_disk_is_said_once_and_ends_nothing(decoder, tmp_path, monkeypatch, caplog, failing):
    reads = [decoder(name=f"{number}.mp4") for number in range(3)]
    if failing == "write":
        monkeypatch.setattr(CacheFolder, "write", _full)
    elif failing == "space":
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(cache_folder.shutil, "disk_usage", lambda path: usage._replace(free=2**20))
    else:
        (tmp_path / "cache").write_text("")
    for read in reads:
        read.cache = reads[0].cache
        with caplog.at_level(logging.WARNING):
            assert read().frames_FHWC.shape == (4, SIZE, SIZE, 3)
    assert caplog.text.count("cannot be written") == 1
    assert "free some space, or set --data.cache.folder elsewhere" in caplog.text


def _full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_many_processes_at_once(tmp_path):
    """Four processes read the same clips through one small cache: every frame right, the limit kept, nothing half."""
    for number in range(4):
        write_clip(tmp_path / f"{number}.mp4", num_frames=40 - number)
    work = [sys.executable, "-m", "tests.video.cache_worker", str(tmp_path)]
    root = Path(__file__).parents[2]
    processes = [subprocess.Popen([*work, str(seed)], cwd=root, stderr=subprocess.PIPE, text=True) for seed in range(4)]
    for process in processes:
        _, error = process.communicate(timeout=300)
        assert process.returncode == 0, error
        assert "cannot be" not in error
    folder = CacheFolder(tmp_path / "cache", 0)
    assert 0 < folder.size() <= 3 * ENTRY
    assert not list((tmp_path / "cache").rglob("*.tmp"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "png"}, r"format='png' is not one of \['raw', 'lz4', 'zstd', .*\]; set --data.cache.format"),
        ({"max_gib": 0.0}, "max_gib=0.0 is not above 0; set --data.cache.max_gib"),
        ({"max_gib": float("nan")}, "max_gib=nan"),
    ],
)
def test_settings_that_cannot_be(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        CacheSettings(tmp_path, **options)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"is not a folder; set --data\.cache\.folder"):
        CacheSettings(tmp_path / "file")
    with pytest.raises(ValueError, match=r"cannot be looked at \(File name too long\); set --data\.cache\.folder"):
        CacheSettings(tmp_path / ("x" * 300))
