import hashlib
import logging
import os

import av
import numpy as np
import pytest

from vlm_crash.video import FrameSampling, UnreadableClipError, content_hash, list_clips, read_frames
from vlm_crash.video.clip_files import log_other_files


def test_clips_are_sorted_by_number_then_name(tmp_path):
    for name in ("10.mp4", "9.mp4", "2.MP4", "b.avi", "a.gif", "notes.txt", "1_1.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "folder.mp4").mkdir()
    assert [p.name for p in list_clips(tmp_path)] == ["2.MP4", "9.mp4", "10.mp4", "1_1.mp4", "a.gif", "b.avi"]


def test_a_link_that_leads_nowhere_is_a_clip_that_cannot_be_read(tmp_path):
    (tmp_path / "dangling.mp4").symlink_to("nowhere")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    found = list_clips(tmp_path)
    assert [path.name for path in found] == ["dangling.mp4", "loop.mp4"]
    for path in found:
        with pytest.raises(UnreadableClipError):
            read_frames(path, FrameSampling(1))


def test_a_pipe_is_a_clip_that_cannot_be_read(tmp_path):
    """And that nobody waits for."""
    os.mkfifo(tmp_path / "1.mp4")
    (path,) = list_clips(tmp_path)
    for call in (lambda: read_frames(path, FrameSampling(1)), lambda: content_hash(path)):
        with pytest.raises(UnreadableClipError, match="not a file"):
            call()


def test_files_of_other_kinds_are_named_in_one_line(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    for name in ("1.mp4", ".hidden"):
        (tmp_path / name).touch()
    log_other_files(tmp_path)
    assert caplog.messages == []
    for name in ("2.mpeg4", "notes.txt", "clip"):
        (tmp_path / name).touch()
    log_other_files(tmp_path)
    assert caplog.messages == [f"{tmp_path}: 3 files of other kinds were left out: 2.mpeg4, clip, notes.txt"]


def test_a_name_that_is_not_utf8(tmp_path, make_clip):
    clip = make_clip("a.mp4")
    odd = clip.rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mp4"))
    assert len(read_frames(odd, FrameSampling(2)).frames_FHWC) == 2


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder of clips"):
        list_clips(tmp_path / "nowhere")


def test_content_hash_is_that_of_the_bytes(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"x" * 3_000_000)
    assert content_hash(path) == hashlib.sha256(b"x" * 3_000_000).hexdigest()
    with pytest.raises(UnreadableClipError, match="no such file"):
        content_hash(tmp_path / "b.mp4")


def test_files_of_macos_and_folders_are_no_clips_and_told(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    for name in ("1.mp4", "._1.mp4", "._2.MOV", "._notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "3.mp4").mkdir()
    assert [path.name for path in list_clips(tmp_path)] == ["1.mp4"]
    log_other_files(tmp_path)
    assert caplog.messages == [
        f"{tmp_path}: 2 files of macOS that begin with ._ left out: no clips",
        f"{tmp_path}: 1 folder is named as a clip and left out: 3.mp4",
    ]


@pytest.mark.parametrize("suffix", [".h264", ".264", ".h265", ".265", ".hevc"])
def test_streams_without_a_container_are_read(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    form, codec = ("h264", "libx264") if "64" in suffix else ("hevc", "libx265")
    with av.open(str(path), "w", format=form) as file:
        stream = file.add_stream(codec, rate=10, options={"x265-params": "log-level=none"} if form == "hevc" else {})
        stream.width = stream.height = 64
        for _ in range(6):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), 99, np.uint8))))
        file.mux(stream.encode())
    assert list_clips(tmp_path) == [path]
    assert len(read_frames(path, FrameSampling(2)).frames_FHWC) == 2
