"""Long recordings -> batches of their windows, each fed to the model as a clip of that span would be.

Enters: samples whose files are recordings, and what is to be read of them: the windows from some number on, or chosen
windows again. Leaves: batches whose samples say which window they are. Must hold: a batch of windows is of one
recording and begins where it would without an interruption, so that a scan that goes on computes what one that was
never stopped does; a recording whose decoder hangs or dies ends in a failed item behind the windows before that place.
"""

import dataclasses
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch.utils.data import DataLoader, Dataset, IterableDataset

from vlm_crash.data.collate import Batch, Collator, FailedItem, Item
from vlm_crash.data.dataset import SampleRecipe
from vlm_crash.data.workers import heed_parent_alone
from vlm_crash.schema.records import VideoSample
from vlm_crash.video.guarded import UnreadableClipError
from vlm_crash.video.guarded_windows import read_window, read_windows
from vlm_crash.video.windows import WindowGrid


@dataclass(frozen=True)
class WindowSample(VideoSample):
    """One window of a recording; `id`, `video` and `path` are the recording's.

    Attributes:
        window: its number.
        is_last: no window comes after it.
        damage: of the last one: what was wrong with the recording; None: nothing.
        num_moved: frames up to here whose time stamps do not say when they are shown.
        is_steady: of a window that is read again: whether there are none in all the recording; None: not known.
    """

    window: int = 0
    start_s: float = 0.0
    end_s: float = 0.0
    is_last: bool = False
    damage: str | None = None
    num_moved: int = 0
    is_steady: bool | None = None


def window_sample(recording: VideoSample, **where: Any) -> WindowSample:
    """A window of a recording."""
    known = {name.name: getattr(recording, name.name) for name in dataclasses.fields(VideoSample)}
    return WindowSample(**{**known, **where})


@dataclass(frozen=True)
class ScanPlan:
    """What is read of the recordings.

    Args:
        window_s, stride_s: how long windows are, and how often one begins.
        first: by recording (its id), the number of the first window to read; None: it is done. Others: from 0.
        only: by recording, the windows that are judged, each with the rest of its batch. Others: all of them.
        unsteady: recordings (their ids) with time stamps that were moved, before that window.
        again: windows to answer; given, nothing else is read.
    """

    window_s: float
    stride_s: float
    first: Mapping[str, int | None] = field(default_factory=dict)
    only: Mapping[str, frozenset[int]] = field(default_factory=dict)
    unsteady: Container[str] = ()
    again: Sequence[WindowSample] | None = None

    def grid(self, recipe: SampleRecipe) -> WindowGrid:
        return WindowGrid(self.window_s, self.stride_s, recipe.sampling)

    def loader(
        self, recordings: Sequence[VideoSample], recipe: SampleRecipe, batch_size: int, num_workers: int
    ) -> DataLoader[Batch]:
        """Batches of windows, `events_only`; or of the windows to answer."""
        collate = Collator(recipe.tokenizer.end_token_id, "left")
        if self.again is not None:
            chosen: Any = ChosenWindows(self.again, recipe, self.grid(recipe))
            return DataLoader(
                chosen,
                batch_size=batch_size,
                num_workers=num_workers,
                worker_init_fn=heed_parent_alone,
                collate_fn=collate,
            )
        return DataLoader(
            WindowBatches(recordings, recipe, self, batch_size, collate),
            batch_size=None,
            num_workers=min(1, num_workers),  # one pass over a recording has one reader
            worker_init_fn=heed_parent_alone,
        )


@dataclass
class WindowBatches(IterableDataset[Batch]):
    """Batches of windows of one recording after the other; a recording that cannot be read is a failed item."""

    recordings: Sequence[VideoSample]
    recipe: SampleRecipe
    plan: ScanPlan
    batch_size: int
    collate: Collator

    def __iter__(self) -> Iterator[Batch]:
        for recording in self.recordings:
            first = self.plan.first.get(recording.id, 0)
            if first is not None:
                for items in self._batches(recording, first):
                    yield dataclasses.replace(self.collate(items), events_only=True)

    def _batches(self, recording: VideoSample, first: int) -> Iterator[list[Item | FailedItem]]:
        if recording.quarantined is not None:
            yield [FailedItem(recording, f"quarantined: {recording.quarantined}")]
            return
        items: list[Item | FailedItem] = []
        only = self.plan.only.get(recording.id)
        is_wanted = only is None
        try:
            is_steady = False if recording.id in self.plan.unsteady else None
            grid, timeout_s = self.plan.grid(self.recipe), self.recipe.clip_timeout_s
            for window in read_windows(recording.path, grid, first, is_steady, timeout_s):
                if only is not None and not items and window.index > max(only):
                    return
                sample = window_sample(
                    recording, window=window.index, start_s=window.start_s, end_s=window.end_s,
                    is_last=window.is_last, damage=window.damage, num_moved=window.num_moved,
                )  # fmt: skip
                items.append(self.recipe.item_of(sample, window.frames, supervised=False))
                is_wanted = only is None or is_wanted or window.index in only
                if len(items) == self.batch_size:
                    if is_wanted:
                        yield items
                    items, is_wanted = [], only is None
        except UnreadableClipError as error:
            items.append(FailedItem(recording, error.reason))
            is_wanted = True
        if items and is_wanted:
            yield items


@dataclass
class ChosenWindows(Dataset[Item | FailedItem]):
    """Windows that are read again, each by itself."""

    windows: Sequence[WindowSample]
    recipe: SampleRecipe
    grid: WindowGrid

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Item | FailedItem:
        sample = self.windows[index]
        try:
            frames = read_window(
                sample.path, self.grid, sample.start_s, sample.end_s, sample.is_steady, self.recipe.clip_timeout_s
            )
        except UnreadableClipError as error:
            return FailedItem(sample, error.reason)
        return self.recipe.item_of(sample, frames, supervised=False)
