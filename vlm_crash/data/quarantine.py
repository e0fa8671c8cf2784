"""Which clips of a dataset can be used, as `check` has found.

Enters: the samples of a dataset, clips.csv beside it and in the folders of its clips. Leaves: the same samples, those
that are quarantined marked with the reason. Must hold: a row that speaks of another file than the one that is there
now says nothing, and its clip is named; a clip whose event was corrected keeps its row; nothing is dropped without a
line in the log; processes that see the same bytes quarantine the same clips, whatever time stamps their disks give.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path

from vlm_crash.data.clip_table import CLIPS_FILE, QUARANTINED, ClipRow, Key, Stamp, newest, row_of, rows_in
from vlm_crash.data.prepared import clip_folders
from vlm_crash.schema.records import VideoSample
from vlm_crash.video.container import UnreadableClipError
from vlm_crash.video.guarded import content_hash

log = logging.getLogger(__name__)

_MAX_NAMED = 5


@dataclass(frozen=True)
class Checks:
    """What is known of the clips of a dataset.

    Args:
        folder: of the dataset.
        clip_folders: event -> folder of its clips.
    """

    folder: Path
    rows: Mapping[Key, ClipRow]
    clip_folders: Mapping[str, Path]

    @classmethod
    def of(cls, folder: Path) -> Checks:
        """What stands beside a dataset; ValueError where that is no file of ours.

        Args:
            folder: as `load_prepared` takes it.
        """
        roots = clip_folders(folder)
        folder = folder.parent if folder.suffix == ".json" else folder
        return cls(folder, rows_in([folder])[folder], roots)

    def marked(self, splits: Mapping[str, Sequence[VideoSample]]) -> dict[str, list[VideoSample]]:
        """`mark` of several splits in one."""
        found = iter(self.mark(chain.from_iterable(splits.values())))
        return {name: list(islice(found, len(samples))) for name, samples in splits.items()}

    def mark(self, samples: Iterable[VideoSample]) -> list[VideoSample]:
        """The samples in their order, `quarantined` set where a clip is; one line of the log says how many are used."""
        samples = list(samples)
        folders = rows_in(sample.path.parent for sample in samples)
        marked, changed, num_unchecked = [], [], 0
        for sample in samples:
            stamp = Stamp.of(sample.path)
            beside = folders[sample.path.parent].get(Key.of(None, sample.path.name))
            own = row_of(self.rows, Key.of(sample.event, sample.video), sample.path, self.clip_folders)
            found = [row for row in (own, beside) if row is not None]
            row = newest(row for row in found if _speaks_of(row, stamp, sample.path))
            if found and row is None:
                changed.append(sample)
            num_unchecked += row is None
            is_bad = row is not None and row.status == QUARANTINED
            marked.append(replace(sample, quarantined=row.reason) if row is not None and is_bad else sample)
        self._say(marked, changed, num_unchecked)
        return marked

    def _say(self, marked: list[VideoSample], changed: list[VideoSample], num_unchecked: int) -> None:
        num_bad = sum(sample.quarantined is not None for sample in marked)
        text = f"{len(marked) - num_bad:,} of {len(marked):,} clips used, {num_bad:,} quarantined"
        unchecked = f", {num_unchecked:,} not checked (run `check {self.folder}`)" if num_unchecked else ""
        log.info("%s%s: %s", text, unchecked, self.folder / CLIPS_FILE)
        if changed:
            names = ", ".join(str(sample.path) for sample in changed[:_MAX_NAMED])
            log.warning(
                "%d clips have changed since they were checked, and count as not checked: %s%s; run `check %s` again",
                len(changed), names, ", ..." if len(changed) > _MAX_NAMED else "", self.folder,
            )  # fmt: skip


def _speaks_of(row: ClipRow, stamp: Stamp, path: Path) -> bool:
    """Whether a row is of the file that is there now.

    Another time stamp alone frees no quarantined clip: disks round it, copies lose it, and the bytes are what counts.
    """
    if row.stamp == stamp:
        return True
    if row.status != QUARANTINED or row.stamp.bytes != stamp.bytes or not row.cells["sha256"]:
        return False
    try:
        return content_hash(path) == row.cells["sha256"]
    except UnreadableClipError:
        return False


def no_clips(folder: Path, split: str, marked: Sequence[VideoSample]) -> str:
    """Why a split has none to use, and what one does about it.

    Args:
        marked: all of them.
    """
    if not marked:
        return f"{folder} has no {split} clips; run `prepare` with more clips or other fractions"
    return (
        f"{folder} has no {split} clips that can be used: all {len(marked):,} are quarantined (the first, "
        f"{marked[0].path}: {marked[0].quarantined}), as {CLIPS_FILE} beside it or in the folder of the clips says; "
        f"convert or replace them, or run `check {folder} --recheck true`"
    )


def in_use(samples: Iterable[VideoSample]) -> list[VideoSample]:
    """Those that are not quarantined."""
    return [sample for sample in samples if sample.quarantined is None]
