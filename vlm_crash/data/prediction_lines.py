"""The lines of a folder of predictions: which clips have one, and all of them in one file.

Enters: predictions.jsonl and the parts that processes wrote (predictions.rank000.jsonl ...), of a run that may have
been killed at any moment. Leaves: the key of each line (clip_store.py), and one predictions.jsonl in the list's order.
Must hold: a whole line is never lost, a half one never kept; no clip has two lines in what is merged; of all lines
together 35 bytes each are in memory, not their text.
"""

import json
import logging
import os
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlm_crash.data.clip_store import as_keys, clip_key
from vlm_crash.data.files import whole_file

log = logging.getLogger(__name__)

WHOLE = "predictions.jsonl"
PARTS = "predictions.rank*.jsonl"
MAX_SHOWN = 5


def part_name(rank: int) -> str:
    """The file of one of several processes."""
    return f"predictions.rank{rank:03d}.jsonl"


def prediction_files(folder: Path) -> list[Path]:
    """The merged file first, then the parts, which are newer."""
    whole = folder / WHOLE
    return [*([whole] if whole.exists() else []), *sorted(folder.glob(PARTS))]


class PredictionLines:
    """Where each line of a folder's files is, and whose.

    Attributes:
        keys: the clip of each line, all files one after the other.
        is_failed: whether it says that its clip could not be read.
        runs: lines of each run id.
        halves: files whose last line is cut off, and how many bytes of whole lines they have.

    Raises:
        ValueError: a whole line is no prediction.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = prediction_files(folder)
        self.runs: Counter[str] = Counter()
        self.halves: dict[Path, int] = {}
        self._problems: list[str] = []
        self._keys, self._failed = bytearray(), bytearray()
        self._files, self._starts, self._sizes = array("H"), array("Q"), array("I")
        for number, path in enumerate(self.files):
            self._read(number, path)
        if self._problems:
            more = f"\n  ... and {len(self._problems) - MAX_SHOWN} more" if len(self._problems) > MAX_SHOWN else ""
            raise ValueError(
                "the predictions that are there cannot be gone on with; take these lines out (their clips are done "
                "again), or set --overwrite true:\n  " + "\n  ".join(self._problems[:MAX_SHOWN]) + more
            )
        self.keys = as_keys(self._keys)
        self.is_failed = np.frombuffer(bytes(self._failed), dtype=bool)

    def _read(self, number: int, path: Path) -> None:
        start = 0
        with path.open("rb") as file:
            for row, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    self.halves[path] = start
                    log.warning("%s: line %d is cut off (a run was killed); it is taken out", path, row)
                    break
                try:
                    self._add(json.loads(line))
                except (ValueError, KeyError, TypeError) as error:
                    self._problems.append(f"{path}, line {row}: not a prediction ({error})")
                else:
                    self._files.append(number)
                    self._starts.append(start)
                    self._sizes.append(len(line))
                start += len(line)

    def _add(self, row: Any) -> None:
        if not isinstance(row, dict):
            raise TypeError(f"it is no object but {type(row).__name__}")
        # Lines of older versions have the path as it was typed.
        path = os.fspath(Path(row.get("path") or row["video"]).absolute())
        key = clip_key(row.get("source_event"), path)
        self._failed.append(row["status"] == "failed")
        self.runs[str(row.get("provenance"))] += 1
        self._keys += key

    def __len__(self) -> int:
        return len(self.keys)

    def done(self, retry_failed: bool) -> np.ndarray:
        """Keys of the clips that need not be done (again)."""
        return self.keys[~self.is_failed] if retry_failed else self.keys

    def of_others(self, keys: np.ndarray) -> int:
        """Lines of clips that are not among these."""
        return int((~np.isin(self.keys, keys)).sum())

    def cut(self) -> None:
        """Take the half lines out of the files."""
        for path, size in self.halves.items():
            os.truncate(path, size)

    def merge(self, keys: np.ndarray, drop_failed: bool = False) -> None:
        """One predictions.jsonl in the order of these clips, then what is of others; the parts go.

        Where it is so already, nothing is written.

        Args:
            keys: of the clips, in the list's order.
            drop_failed: leave the failed lines of these clips out, as they are done again.

        Raises:
            OSError: no space; the files are as they were.
        """
        order = self._order(keys, drop_failed)
        if self.files in ([], [self.folder / WHOLE]) and not self.halves and np.array_equal(order, range(len(self))):
            return
        whole = self.folder / WHOLE
        with whole_file(whole) as out:
            for line in self._lines(order):
                out.write(line)
        for path in self.files:
            if path != whole:
                path.unlink(missing_ok=True)

    def _order(self, keys: np.ndarray, drop_failed: bool) -> np.ndarray:
        """Numbers of the lines to keep: of each clip an answer before a failure, the newer before the older."""
        # Sorted by clip, then by worth: the last of each clip is the one to keep.
        by_clip = np.lexsort((np.arange(len(self)), ~self.is_failed, self.keys))
        if not len(by_clip):
            return by_clip
        found = self.keys[by_clip]
        is_last = np.append(found[1:] != found[:-1], True)
        best = by_clip[is_last]
        sorter = np.argsort(keys, kind="stable")
        places = np.searchsorted(keys, self.keys[best], sorter=sorter).clip(max=max(0, len(keys) - 1))
        is_named = keys[sorter[places]] == self.keys[best] if len(keys) else np.zeros(len(best), dtype=bool)
        rank = np.where(is_named, sorter[places] if len(keys) else 0, len(keys) + best)
        if drop_failed:
            kept = ~(is_named & self.is_failed[best])
            best, rank = best[kept], rank[kept]
        return best[np.argsort(rank, kind="stable")]

    def _lines(self, order: np.ndarray) -> Iterator[bytes]:
        handles: Sequence[Any] = [path.open("rb", buffering=0) for path in self.files]
        try:
            for number in order.tolist():
                yield os.pread(handles[self._files[number]].fileno(), self._sizes[number], self._starts[number])
        finally:
            for handle in handles:
                handle.close()
