"""Files and folders that are whole or not there.

Enters: a final name. Leaves: something new under it, complete. Invariant: whenever the process is killed, the final
name, or `standing(name)`, leads to the last complete content.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def part_of(path: Path) -> Path:
    """Where the new content is written before it gets its final name; empty by then."""
    part = path.with_name(f".{path.name}.part")
    _delete(part)
    part.parent.mkdir(parents=True, exist_ok=True)
    return part


def put_in_place(part: Path, path: Path) -> None:
    """Give what is complete its final name, once it is on the disk.

    A file replaces a file in one step. A folder cannot replace a folder: the old one steps aside first, and
    `standing` finds it there if the process is killed between the two steps.
    """
    for file in [part, *part.rglob("*")] if part.is_dir() else [part]:
        _sync(file)
    if path.is_dir() or (path.exists() and part.is_dir()):
        _delete(_aside(path))
        path.rename(_aside(path))
    part.replace(path)
    _sync(path.parent)
    _delete(_aside(path))


def standing(path: Path) -> Path:
    """Where the complete content of a name is: at the name, or aside where a replacement was interrupted."""
    return _aside(path) if not path.exists() and _aside(path).exists() else path


def remove(path: Path) -> None:
    """Remove a file or folder; one that is half removed no longer has its name."""
    if path.is_dir() and not path.is_symlink():
        _delete(_aside(path))
        path = path.rename(_aside(path))
    _delete(path)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Write a file aside; it gets its name when the block ends well, and is gone when it does not."""
    part = part_of(path)
    try:
        yield part
        put_in_place(part, path)
    except BaseException:
        _delete(part)
        raise


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
