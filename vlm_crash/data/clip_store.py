"""Clips to predict, as many as there are, on disk: each becomes a sample when it is asked for.

Enters: paths and events, one after the other. Leaves: a sequence of VideoSamples without annotations, and a key for
each. Must hold: no clip is there twice; memory is 30 bytes a clip, and 100 while repeated clips are looked for.

What identifies a clip is its path as it is given (made absolute, links not followed: two links to one file are two
clips) with the event that its source names. Two processes that read the same sources have the same store.
"""

import hashlib
import logging
import os
import tempfile
from array import array
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np

from vlm_crash.data.clip_lists import list_rows
from vlm_crash.schema.records import VideoSample
from vlm_crash.video.clip_files import readable_name

log = logging.getLogger(__name__)

#: Bytes of a key.
KEY_SIZE = 16
#: Clips that are named where there are many.
MAX_NAMED = 5


def clip_key(event: str | None, path: str) -> bytes:
    """What identifies a clip: of the event that its source names, and its absolute, readable path."""
    return hashlib.blake2b(f"{event or ''}\0{path}".encode(), digest_size=KEY_SIZE).digest()


def as_keys(keys: bytes | bytearray) -> np.ndarray:
    """Keys, one after the other, as an array that can be sorted and searched."""
    # An "S16" is shown without trailing zeros, and compared as if it had them: no two keys become one.
    return np.frombuffer(bytes(keys), dtype=f"S{KEY_SIZE}")


def keys_of(samples: Sequence[VideoSample]) -> np.ndarray:
    """The key of each clip."""
    if isinstance(samples, ClipStore):
        return samples.keys
    return as_keys(b"".join(clip_key(s.event, readable_name(Path(s.path).absolute())) for s in samples))


def loose_sample(path: Path, event: str | None = None) -> VideoSample:
    """A clip of which nothing is known but its file, and the event that its source names."""
    name = f"{event or 'clip'}:{readable_name(path)}"
    return VideoSample(name, readable_name(path.name), path, event, annotation=None, duration_s=None)


class ClipStore(Sequence[VideoSample]):
    """Clips by number.

    Args:
        events: names of the events that a clip's source may name.
    """

    def __init__(self, events: Sequence[str]) -> None:
        self._events: tuple[str | None, ...] = (None, *events)
        # Without a name: it goes when the process does, however that ends. Workers read it through the same handle.
        self._file = tempfile.TemporaryFile(buffering=2**20)  # noqa: SIM115
        self._starts = array("Q", [0])
        self._rows = array("I")
        self._of_event = array("B")
        self._keys = bytearray()
        #: (number of its first clip, name of the source).
        self._sources: list[tuple[int, str]] = []
        self._order: np.ndarray | None = None
        self.keys = as_keys(b"")

    def add_samples(self, samples: Iterable[VideoSample]) -> None:
        """Clips that are at hand."""
        self._sources.append((len(self._rows), ""))
        for row, sample in enumerate(samples, start=1):
            self._add(row, os.fspath(Path(sample.path).absolute()), self._events.index(sample.event))

    def add_list(self, path: Path) -> None:
        """The rows of a list, paths relative to its folder.

        Raises:
            ValueError: the list, or rows of it, cannot be used.
        """
        self._sources.append((len(self._rows), str(path)))
        folder = os.fspath(path.absolute().parent)
        numbers = {event: number for number, event in enumerate(self._events)}
        for row in list_rows(path, self._events[1:]):  # type: ignore[arg-type]
            path_of_row = os.path.join(folder, row.path)  # noqa: PTH118 - Path takes four times as long
            if any(part in path_of_row for part in ("//", "/./")) or path_of_row.endswith(("/", "/.")):
                path_of_row = os.fspath(Path(path_of_row))
            self._add(row.number, path_of_row, numbers[row.event])

    def _add(self, row: int, path: str, event: int) -> None:
        record = os.fsencode(path)
        self._file.write(record)
        self._starts.append(self._starts[-1] + len(record))
        self._rows.append(row)
        self._of_event.append(event)
        self._keys += clip_key(self._events[event], readable_name(path))

    @property
    def num_added(self) -> int:
        """Clips that were added, repeated ones included."""
        return len(self._rows)

    def close(self, num_videos: int = 0, num_first: int = 0) -> "ClipStore":
        """The same without repeated clips, and with so many of each event at most (0: all), the first ones.

        Args:
            num_first: clips added first that do not count and stay.
        """
        self._file.flush()
        keys = as_keys(self._keys)
        self._keys = bytearray()
        _, first = np.unique(keys, return_index=True)
        kept = np.sort(first)
        if len(kept) < len(keys):
            self._name_repeated(keys, kept)
        if num_videos:
            first, rest = kept[kept < num_first], kept[kept >= num_first]
            events = np.frombuffer(self._of_event, np.uint8)[rest]
            taken = [rest[events == event][:num_videos] for event in np.unique(events)]
            kept = np.sort(np.concatenate([first, *taken]))
        if len(kept) < len(keys):
            self._order, keys = kept, keys[kept]
        self.keys = keys
        return self

    def _name_repeated(self, keys: np.ndarray, kept: np.ndarray) -> None:
        repeated = np.setdiff1d(np.arange(len(keys)), kept, assume_unique=True)
        named = ", ".join(self._place(int(number)) for number in repeated[:MAX_NAMED])
        more = ", ..." if len(repeated) > MAX_NAMED else ""
        log.warning("%d clips are given more than once and done once: again in %s%s", len(repeated), named, more)

    def _place(self, record: int) -> str:
        source = next(name for start, name in reversed(self._sources) if start <= record)
        clip = readable_name(self._sample(record).path)
        return f"{source}, row {self._rows[record]} ({clip})" if source else clip

    def _sample(self, record: int) -> VideoSample:
        start, end = self._starts[record], self._starts[record + 1]
        path = Path(os.fsdecode(os.pread(self._file.fileno(), end - start, start)))
        return loose_sample(path, self._events[self._of_event[record]])

    @cached_property
    def one_of_each(self) -> list[VideoSample]:
        """The first clip of each event (or of none): nothing else decides how long a question is."""
        events = np.frombuffer(self._of_event, np.uint8)
        _, first = np.unique(events if self._order is None else events[self._order], return_index=True)
        return [self[int(number)] for number in first]

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, index: int) -> VideoSample: ...

    @overload
    def __getitem__(self, index: slice) -> list[VideoSample]: ...

    def __getitem__(self, index: Any) -> VideoSample | list[VideoSample]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        return self._sample(number if self._order is None else int(self._order[number]))
