"""Clips as files: which ones a folder holds, in which order, and what identifies their content."""

from __future__ import annotations

import hashlib
from pathlib import Path

from vlm_crash.video.container import UnreadableClipError

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".wmv", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".flv", ".3gp"}
    | {".gif"}
)


def list_clips(folder: str | Path) -> list[Path]:
    """The clips of a folder, by number first (2.mp4 before 10.mp4), then by name.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of clips; give the folder that holds the video files")
    clips = [p for p in folder.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file()]
    return sorted(clips, key=clip_sort_key)


def clip_sort_key(clip: Path) -> tuple[bool, int, str]:
    """Numbered clips first, by number; then the others, by name.

    >>> sorted(["b.mp4", "10.mp4", "2.mp4"], key=lambda name: clip_sort_key(Path(name)))
    ['2.mp4', '10.mp4', 'b.mp4']
    """
    number = int(clip.stem) if clip.stem.isascii() and clip.stem.isdigit() else None
    return number is None, number or 0, clip.name


def content_hash(path: str | Path) -> str:
    """sha256 of the file's bytes, in hex.

    Raises:
        UnreadableClipError: the file cannot be opened.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UnreadableClipError(path, (error.strerror or str(error)).lower()) from error
