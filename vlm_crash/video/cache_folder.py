"""A folder of files that many processes write into, and that never holds more than it may.

Enters: names and bytes. Leaves: the bytes again, or None where there are none.
Must hold: a file of a final name is whole; the files together stay within the limit, and leave room on the disk for
others; what was not used for longest goes first; no process waits for another but for the moment that a file takes its
place.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

#: Bytes of the disk that stay free for others: checkpoints, above all.
RESERVE = 2**30
#: Of the limit: what is left after a clearing, so that not every new file needs one.
_LOW = 0.95
_BLOCK = 4096  # bytes of disk that the smallest file takes
_STALE_S = 3600.0  # a file that is written for an hour belongs to a process that is gone
_TEMPORARY = ".tmp"
#: What the folder holds; nothing else of it is looked at, and nothing else is ever removed.
KINDS = ("frames", "clips")
_NAME = re.compile(r"[0-9a-f]{40}(\.[0-9a-f]{32}\.tmp)?")
_BOOK, _LOCK = "size", "lock"


class NoRoomError(OSError):
    """There is no room for a file, whatever is cleared away."""


class TooLargeError(NoRoomError):
    """The file alone has more bytes than all may have together."""


class _Entry(NamedTuple):
    used: float
    size: int
    path: str


class CacheFolder:
    """Files by kind and name.

    Args:
        folder: made as soon as something is kept.
        max_bytes: most bytes of all files.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = Path(folder), max_bytes

    def path(self, kind: str, name: str) -> Path:
        """Where a file is, or would be."""
        return self.folder / kind / name[:2] / name

    def read(self, kind: str, name: str) -> np.ndarray | None:
        """The bytes of a file, writable; it counts as used now.

        No memory map: a file that another machine clears away would end this process by SIGBUS.

        Raises:
            OSError: it is there and cannot be read.
        """
        path = self.path(kind, name)
        try:
            with path.open("rb", buffering=0) as file:
                content = np.empty(os.fstat(file.fileno()).st_size, np.uint8)
                end = 0
                while end < len(content) and (count := file.readinto(content.data[end:])):
                    end += count
        except (FileNotFoundError, NotADirectoryError):
            return None
        with contextlib.suppress(OSError):  # a cache of somebody else's, that may only be read
            os.utime(path)
        return content[:end]

    def write(self, kind: str, name: str, parts: Sequence[Any]) -> None:
        """Keep these bytes, whole or not at all.

        Raises:
            OSError: the disk is full, or the folder cannot be written; NoRoomError: it would not fit; TooLargeError:
                it would not, alone; nothing is written or cleared away then.
        """
        path = self.path(kind, name)
        size = _on_disk(sum(len(part) for part in parts))
        if size > self.max_bytes:
            raise TooLargeError(
                f"a clip's frames take {_readable(size)}, more than the {_readable(self.max_bytes)} that the frame "
                f"cache {self.folder} may have"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        self._check_disk(size)
        temporary = path.with_name(f"{name}.{uuid.uuid4().hex}{_TEMPORARY}")
        try:
            with temporary.open("xb", buffering=0) as file:
                for part in parts:
                    rest = memoryview(part)
                    while rest:
                        rest = rest[file.write(rest) :]
            with self._locked():
                total = self._booked() + size - _size_of(path)
                if total > self.max_bytes:
                    total = self._clear(size, keep=str(path)) + size
                temporary.replace(path)
                (self.folder / _BOOK).write_text(str(total), encoding="ascii")
        finally:
            temporary.unlink(missing_ok=True)

    def remove(self, kind: str, name: str) -> None:
        """Take a file away, if it is there and that may be done."""
        with contextlib.suppress(OSError):
            self.path(kind, name).unlink()

    def room(self) -> int:
        """Bytes that the files together could have: the limit, or what the disk has beside what is others'."""
        return min(self.max_bytes, self.free() + sum(entry.size for entry in self._entries()))

    def free(self) -> int:
        """Bytes of the disk that may still be filled."""
        there = next(path for path in (self.folder.absolute(), *self.folder.absolute().parents) if path.exists())
        return max(0, shutil.disk_usage(there).free - RESERVE)

    def size(self) -> int:
        """Bytes of all files, counted."""
        return sum(entry.size for entry in self._entries())

    def _check_disk(self, size: int) -> None:
        """Clear away where the disk is nearly full of others' files."""
        if self.free() < size:
            with self._locked():
                (self.folder / _BOOK).write_text(str(self._clear(size, self.size())), encoding="ascii")
            if self.free() < size:
                raise NoRoomError(f"less than {_readable(RESERVE + size)} of the disk is free")

    def _clear(self, size: int, most: int | None = None, keep: str = "") -> int:
        """Remove what was not used for longest until so many bytes fit; the bytes that stay. Only under the lock."""
        most = min(self.max_bytes, self.max_bytes if most is None else most)
        entries = sorted(self._entries())
        total = sum(entry.size for entry in entries if entry.path != keep)
        for entry in entries:
            if total + size <= min(most, max(size, most * _LOW)):
                break
            if entry.path != keep:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(entry.path)  # noqa: PTH108
                total -= entry.size
        return total

    def _entries(self) -> Iterator[_Entry]:
        """All files but the book and the lock; those of dead processes go."""
        now = time.time()
        for kind in KINDS:
            for shard in _scan(self.folder / kind):
                for entry in _scan(shard.path) if shard.is_dir() else ():
                    if _NAME.fullmatch(entry.name) is None:
                        continue
                    with contextlib.suppress(FileNotFoundError):
                        status = entry.stat()
                        if not entry.name.endswith(_TEMPORARY):
                            yield _Entry(status.st_mtime, _on_disk(status.st_size), entry.path)
                        elif now - status.st_mtime > _STALE_S:
                            os.unlink(entry.path)  # noqa: PTH108

    def _booked(self) -> int:
        """Bytes of all files as last written down, or counted anew."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            if (size := int((self.folder / _BOOK).read_text(encoding="ascii"))) >= 0:
                return size
        return self.size()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.folder / _LOCK).open("a") as lock:
            with contextlib.suppress(OSError):  # a file system without locks: the limit is kept about
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _readable(size: int) -> str:
    return f"{size / 2**30:.3g} GiB" if size >= 2**30 else f"{size / 2**20:.3g} MiB"


def _on_disk(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _size_of(path: Path) -> int:
    try:
        return _on_disk(path.stat().st_size)
    except FileNotFoundError:
        return 0


def _scan(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []
