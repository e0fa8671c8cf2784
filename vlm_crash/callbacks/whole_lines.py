"""A file of JSON lines that a run appends to and a later run goes on with.

Enters: records, some at a time. Leaves: whole lines on the disk. Must hold: what `append` has taken is on the disk when
it returns; a line that a killed run left torn is cut off when the file is opened again.
"""

import json
import os
from collections.abc import Iterable, Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from vlm_crash.callbacks.predictions import cannot_write


class WholeLines:
    """The file at `path`, made where it is not there; `lines` are those that were."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            content = path.read_bytes() if path.exists() else b""
            whole = content[: content.rfind(b"\n") + 1]
            self._file = FileIO(path, "r+" if path.exists() else "w+")
            self._file.truncate(len(whole))
            self._file.seek(len(whole))
        except OSError as error:
            raise cannot_write(path, error) from error
        self.lines: list[dict[str, Any]] = [json.loads(line) for line in whole.decode().split("\n")[:-1]]

    def keep(self, lines: list[dict[str, Any]]) -> None:
        """Put these lines in place of all; whole, or as it was."""
        part = self.path.with_name(f"{self.path.name}.part")
        self._file.close()
        try:
            with part.open("wb") as file:
                file.write(_encoded(lines))
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.path)
            self._file = FileIO(self.path, "r+")
            self._file.seek(0, os.SEEK_END)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        self.lines = list(lines)

    def append(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """All of them, or nothing: a part is taken back."""
        found = [dict(line) for line in lines]
        start = self._file.tell()
        try:
            rest = memoryview(_encoded(found))
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.seek(self._file.truncate(start))
            raise cannot_write(self.path, error) from error
        self.lines += found

    def close(self) -> None:
        self._file.close()


def _encoded(lines: Iterable[Mapping[str, Any]]) -> bytes:
    # A surrogate (a part of a name that is not UTF-8) becomes \udcff, which is valid JSON.
    return "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines).encode(errors="backslashreplace")
