import hashlib

import pytest

from vlm_crash.video import UnreadableClipError, content_hash, list_clips


def test_clips_are_sorted_by_number_then_name(tmp_path):
    for name in ("10.mp4", "9.mp4", "2.MP4", "b.avi", "a.gif", "notes.txt", "1_1.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "dangling.mp4").symlink_to("nowhere")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    assert [p.name for p in list_clips(tmp_path)] == ["2.MP4", "9.mp4", "10.mp4", "1_1.mp4", "a.gif", "b.avi"]


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder of clips"):
        list_clips(tmp_path / "nowhere")


def test_content_hash_is_that_of_the_bytes(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"x" * 3_000_000)
    assert content_hash(path) == hashlib.sha256(b"x" * 3_000_000).hexdigest()
    with pytest.raises(UnreadableClipError, match="no such file"):
        content_hash(tmp_path / "b.mp4")
