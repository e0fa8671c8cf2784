"""clips.csv: one row a clip, with what `check` found.

Enters: rows, one after the other, as clips are done. Leaves: the same rows, of a file that may have been cut off
anywhere. Must hold: a row is one line and on disk before the next clip is counted; of several rows of a clip in a file
the last one holds, of those in several files the one that was made last; a row speaks of a file only as long as that
has the same size and time stamp.
"""

from __future__ import annotations

import csv
import fcntl
import io
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from vlm_crash.data.files import write_files
from vlm_crash.video.clip_files import readable_name

log = logging.getLogger(__name__)

CLIPS_FILE = "clips.csv"
#: Every frame is there; some is not, or not as it was filmed; it is kept out of every split.
OK, DAMAGED, QUARANTINED = STATUSES = ("ok", "damaged", "quarantined")
COLUMNS = (
    "clip", "event", "status", "reason", "codec", "size", "fps", "frames", "header_frames", "duration_s", "first_s",
    "last_s", "bad_packets", "bad_frames", "decord", "bytes", "mtime_ns", "sha256", "checked",
)  # fmt: skip
#: As first written, without the last one.
_OLD_COLUMNS = COLUMNS[:-1]


class Key(NamedTuple):
    """A clip within a file: event (empty in a plain folder) and name."""

    event: str
    clip: str

    @classmethod
    def of(cls, event: str | None, name: str) -> Key:
        """The name as it stands in a file: on one line, whatever its bytes."""
        return cls(event or "", readable_name(name).replace("\r", "\\r").replace("\n", "\\n"))


class Stamp(NamedTuple):
    """What tells whether a file has changed."""

    bytes: str
    mtime_ns: str

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """Of a file as it is now; empty where there is none."""
        try:
            status = path.stat()
        except (OSError, ValueError):  # ValueError: a null byte in the name
            return cls("", "")
        return cls(str(status.st_size), str(status.st_mtime_ns))


@dataclass(frozen=True)
class ClipRow:
    """A row: its cells by column, as text."""

    cells: Mapping[str, str]

    @property
    def key(self) -> Key:
        return Key(self.cells["event"], self.cells["clip"])

    @property
    def stamp(self) -> Stamp:
        return Stamp(self.cells["bytes"], self.cells["mtime_ns"])

    @property
    def status(self) -> str:
        return self.cells["status"]

    @property
    def reason(self) -> str:
        return self.cells["reason"]

    @property
    def checked(self) -> str:
        """When it was made, so that later ones sort behind; empty: longer ago than anybody says."""
        return self.cells["checked"]

    @property
    def line(self) -> str:
        return _line(self.cells[column] for column in COLUMNS)


def newest(rows: Iterable[ClipRow]) -> ClipRow | None:
    """Of several rows that speak of a clip the one that was made last, of equals the first; None: there is none."""
    return max(rows, key=lambda row: row.checked, default=None)


def row_of(rows: Mapping[Key, ClipRow], key: Key, path: Path, folders: Mapping[str, Path]) -> ClipRow | None:
    """The row of a clip: under its key, or under one that it has had while its event was another one.

    Args:
        path: of the clip.
        folders: event -> folder of its clips, from which it names them.
    """
    if key in rows or not rows:
        return rows.get(key)
    place = path.parent.resolve() / path.name
    names = ((event, os.path.relpath(place, folder.resolve())) for event, folder in folders.items())
    return next((rows[other] for event, name in names if (other := Key.of(event, Path(name).as_posix())) in rows), None)


class NotOurs(ValueError):
    """A clips.csv that `check` has not written: a list of somebody's."""


def rows_in(folders: Iterable[Path]) -> dict[Path, dict[Key, ClipRow]]:
    """Rows of the clips.csv in each of these folders; none where there is no such file, or one of somebody else.

    Raises:
        ValueError: a file of ours is damaged.
    """
    found = {}
    for folder in set(folders):
        try:
            found[folder] = read_rows(folder / CLIPS_FILE)
        except NotOurs as error:
            log.info("%s; it says nothing here", str(error).partition(";")[0])
            found[folder] = {}
    return found


def read_rows(path: Path) -> dict[Key, ClipRow]:
    """Rows of a clips.csv; none where there is no such file. A last line that was cut off is left out.

    Raises:
        NotOurs: (a ValueError) `check` has not written it.
        ValueError: it is damaged.
    """
    return _rows(path, path.read_bytes()) if path.is_file() else {}


def _rows(path: Path, content: bytes) -> dict[Key, ClipRow]:
    header = _line(COLUMNS).encode()
    if header.startswith(content):
        return {}
    if not content.startswith((header, _line(_OLD_COLUMNS).encode())):
        raise NotOurs(f"{path}: its columns are not those of `check`; move it away, or set --out to another folder")
    try:
        # By "\n" only: a name may hold other characters at which splitlines would cut.
        lines = list(csv.reader(content[: content.rfind(b"\n")].decode("utf-8").split("\n")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: it cannot be read ({error}); {_REMEDY}") from error
    rows: dict[Key, ClipRow] = {}
    for number, cells in enumerate(lines[1:], start=2):
        cells += [""] * (len(cells) == len(_OLD_COLUMNS))  # until a check of all is done, a file has both kinds
        if len(cells) != len(COLUMNS) or cells[COLUMNS.index("status")] not in STATUSES:
            raise ValueError(f"{path}, line {number}: it is no row of `check`; {_REMEDY}")
        row = ClipRow(dict(zip(COLUMNS, cells, strict=True)))
        rows[row.key] = row
    return rows


_REMEDY = "restore the file, or remove it and run `check` again"


class ClipTable:
    """clips.csv while clips are checked; for `with`.

    Args:
        path: the file; it is made, or added to.

    Raises:
        ValueError: another check writes into it, or what is there is no file of ours.
        OSError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        # Without a buffer: what could not be written would be tried again by close(), whose error hides the first.
        self._file = path.open("a+b", buffering=0)
        try:
            # Not lockf, whose lock ends as soon as any reader of the file in this process closes it.
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            self._file.close()
            raise ValueError(f"another check writes into {path}; wait for its end, or set --out") from error
        except OSError:  # a disk that has no locks
            pass
        self._file.seek(0)
        content = self._file.readall()
        self.rows = _rows(path, content)
        whole = content.rfind(b"\n") + 1
        self._file.truncate(whole)
        if whole == 0:
            self._write(_line(COLUMNS))

    def __enter__(self) -> ClipTable:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, row: ClipRow) -> None:
        """Write a row; it outlives this process."""
        self._write(row.line)
        self.rows[row.key] = row

    def finish(self, keys: Iterable[Key]) -> None:
        """One row for each of these clips, in their order, and no others."""
        write_files({self.path: _line(COLUMNS) + "".join(self.rows[key].line for key in keys)})

    def _write(self, line: str) -> None:
        start = self._file.seek(0, os.SEEK_END)
        rest = memoryview(line.encode())
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._file.truncate(start)  # no part of a row
            raise OSError(
                error.errno, f"cannot write ({error.strerror}); free some space or set --out", str(self.path)
            ) from error


def _line(cells: Iterable[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()
