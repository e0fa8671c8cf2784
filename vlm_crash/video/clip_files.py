"""Clips as files: which ones a folder holds, in which order, and what identifies their content."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

from vlm_crash.video.container import UnreadableClipError

logger = logging.getLogger(__name__)

#: How many files of other kinds are named.
MAX_NAMED = 5
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".wmv", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".flv", ".3gp"}
    | {".gif", ".h264", ".264", ".h265", ".265", ".hevc"}  # the last ones: streams without a container
)
#: Beside each file on a disk that cannot hold its attributes macOS leaves one of this name, which is no clip.
MACOS_PREFIX = "._"


def list_clips(folder: str | Path) -> list[Path]:
    """The clips of a folder, by number first (2.mp4 before 10.mp4), then by name.

    A link that leads nowhere and a pipe are clips, too: they cannot be read, and whoever tries says so.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of clips; give the folder that holds the video files")
    return sorted(filter(is_clip_name, _files(folder)), key=clip_sort_key)


def is_clip_name(path: Path) -> bool:
    """Whether a file of that name is a clip.

    >>> is_clip_name(Path("1.MP4")), is_clip_name(Path("1.txt")), is_clip_name(Path("._1.mp4"))
    (True, False, False)
    """
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(MACOS_PREFIX)


def log_other_files(folder: Path) -> None:
    """A line of the log for each kind of what `list_clips` leaves out and is not hidden, and for files of macOS."""
    others = [path for path in _files(folder) if path.suffix.lower() not in VIDEO_SUFFIXES]
    num_macos = sum(
        path.name.startswith(MACOS_PREFIX) and path.suffix.lower() in VIDEO_SUFFIXES for path in _files(folder)
    )
    if num_macos:
        many = "1 file of macOS that begins" if num_macos == 1 else f"{num_macos} files of macOS that begin"
        logger.info("%s: %s with %s left out: no clips", readable_name(folder), many, MACOS_PREFIX)
    folders = sorted(readable_name(path.name) for path in folder.iterdir() if is_clip_name(path) and path.is_dir())
    if folders:
        more = ", ..." if len(folders) > MAX_NAMED else ""
        said = "1 folder is named" if len(folders) == 1 else f"{len(folders)} folders are named"
        logger.warning(
            "%s: %s as a clip and left out: %s%s", readable_name(folder), said, ", ".join(folders[:MAX_NAMED]), more
        )
    names = sorted(readable_name(path.name) for path in others if not path.name.startswith("."))
    if names:
        more = ", ..." if len(names) > MAX_NAMED else ""
        kinds = "1 file of another kind was" if len(names) == 1 else f"{len(names)} files of other kinds were"
        logger.info("%s: %s left out: %s%s", readable_name(folder), kinds, ", ".join(names[:MAX_NAMED]), more)


def readable_name(path: str | Path) -> str:
    r"""A path as text that can be written anywhere: a byte that is not UTF-8 stands as its number, as in `\xff.mp4`.

    >>> print(readable_name("crash/1.mp4"), readable_name(os.fsdecode(b"\xff.mp4")))
    crash/1.mp4 \xff.mp4
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _files(folder: Path) -> list[Path]:
    """What a folder has that is no folder: files, links that lead nowhere, pipes."""
    return [path for path in folder.iterdir() if not path.is_dir()]


def clip_sort_key(clip: Path) -> tuple[bool, int, str]:
    """Numbered clips first, by number; then the others, by name.

    >>> sorted(["b.mp4", "10.mp4", "2.mp4"], key=lambda name: clip_sort_key(Path(name)))
    ['2.mp4', '10.mp4', 'b.mp4']
    """
    number = int(clip.stem) if clip.stem.isascii() and clip.stem.isdigit() else None
    return number is None, number or 0, clip.name


def signature(path: str | Path) -> tuple[int, ...]:
    """What a file cannot change without: inode, size, and the times of its content and of its entry, in ns.

    Nothing, where it cannot be looked at; whoever reads it says why.
    """
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def content_hash(path: str | Path) -> str:
    """sha256 of the file's bytes, in hex.

    Raises:
        UnreadableClipError: the file cannot be opened.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # a pipe would wait for a writer
            raise UnreadableClipError(path, "not a file but a folder; give a clip" if path.is_dir() else "not a file")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UnreadableClipError(path, (error.strerror or str(error)).lower()) from error
