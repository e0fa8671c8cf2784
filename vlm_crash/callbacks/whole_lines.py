"""A file of JSON lines that a run appends to and a later run goes on with.

Enters: records, some at a time. Leaves: whole lines on the disk. Must hold: what `append` has taken is on the disk when
it returns; a line that a killed run left torn is cut off when the file is opened again.
"""

import json
import os
from collections.abc import Collection, Iterable, Mapping
from io import FileIO
from pathlib import Path
from typing import Any


def cannot_write(path: Path, error: OSError) -> OSError:
    """The same error with the path and what to do."""
    return OSError(
        error.errno, f"cannot write ({error.strerror}); free some space or set --output_dir elsewhere", str(path)
    )


def append_whole(file: FileIO, content: bytes) -> None:
    """Put all of it at the end of a file, on the disk when this returns; or nothing: a part is taken back.

    Raises:
        OSError: with the path and a remedy.
    """
    start = file.seek(0, os.SEEK_END)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())
    except OSError as error:
        file.seek(file.truncate(start))
        raise cannot_write(Path(os.fsdecode(file.name)), error) from error


class WholeLines:
    """The file at `path`, made where it is not there; `lines` are those that were.

    Args:
        keys: what each line has.
        remedy: what one does about a line that is none.

    Raises:
        ValueError: a whole line is no JSON object with these keys; the file stays as it is.
    """

    def __init__(self, path: Path, keys: Collection[str] = (), remedy: str = "take it out") -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            content = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise cannot_write(path, error) from error
        whole = content[: content.rfind(b"\n") + 1]
        rows = enumerate(whole.split(b"\n")[:-1], start=1)
        self.lines = [_record(row, f"{path}, line {number}", keys, remedy) for number, row in rows]
        try:
            self._file = FileIO(path, "r+" if path.exists() else "w+")
            self._file.truncate(len(whole))
            self._file.seek(len(whole))
        except OSError as error:
            raise cannot_write(path, error) from error

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
            part.unlink(missing_ok=True)
            raise cannot_write(self.path, error) from error
        self.lines = list(lines)

    def append(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """All of them, or nothing."""
        found = [dict(line) for line in lines]
        append_whole(self._file, _encoded(found))
        self.lines += found

    def close(self) -> None:
        self._file.close()


def _record(row: bytes, place: str, keys: Collection[str], remedy: str) -> dict[str, Any]:
    try:
        found = json.loads(row)
    except ValueError as error:
        raise ValueError(f"{place} is not JSON ({error}); {remedy}") from error
    lacking = [key for key in keys if key not in found] if isinstance(found, dict) else list(keys)
    if lacking or not isinstance(found, dict):
        raise ValueError(f"{place} is no object with {', '.join(lacking)}; {remedy}")
    return found


def _encoded(lines: Iterable[Mapping[str, Any]]) -> bytes:
    # A surrogate (a part of a name that is not UTF-8) becomes \udcff, which is valid JSON.
    return "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines).encode(errors="backslashreplace")
