"""Loose clips -> samples to predict, without annotations.

Enters: folders, files or lists as a user names them. Leaves: samples, those of a folder in numeric order, whose event
is the one that the folder stands for or the list's row names, or None.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from vlm_crash.data.clip_lists import is_list
from vlm_crash.data.clip_store import MAX_NAMED, ClipStore, keys_of, loose_sample
from vlm_crash.schema.fields import Schema
from vlm_crash.schema.records import VideoSample
from vlm_crash.video.clip_files import list_clips, log_other_files

log = logging.getLogger(__name__)

#: How many clips of each event's folder the old scripts took unless told otherwise.
DEFAULT_NUM_VIDEOS = 10


def samples_from_event_folders(folders: Mapping[str, Path], num_videos: int | None) -> list[VideoSample]:
    """Clips of one folder per event.

    Args:
        folders: event -> folder.
        num_videos: most clips per event; 0: all; None: 10, as the old scripts.
    """
    limit = DEFAULT_NUM_VIDEOS if num_videos is None else num_videos
    return [
        sample
        for event, folder in folders.items()
        for sample in _take(_samples([folder], event), limit, f"{event} folder {folder}")
    ]


def loose_clips(
    folders: Mapping[str, Path], paths: Iterable[Path], num_videos: int | None, schema: Schema
) -> ClipStore:
    """Clips of one folder per event, then of files, folders and lists whose event is not known, or a row says it.

    Args:
        folders: event -> folder.
        paths: clips, folders, and lists (.txt, .csv, .jsonl, .parquet).
        num_videos: most clips of each event's folder (None: 10), and of each event of `paths` together (None: all);
            0: all.

    Raises:
        ValueError: a path is not there, a folder holds no clip, rows of a list cannot be used.
    """
    store = ClipStore(schema.event_names)
    if num_videos is not None and num_videos < 0:
        raise _negative(num_videos)
    store.add_samples(samples_from_event_folders(folders, num_videos))
    num_of_folders = store.num_added
    for path in paths:
        if is_list(path):
            store.add_list(path)
        else:
            store.add_samples(_samples([path], None))
    store.close(num_videos or 0, num_of_folders)
    if len(store) > num_of_folders:
        found, given = len(store) - num_of_folders, store.num_added - num_of_folders
        what = f"{found} of {given} clips taken (num_videos={num_videos or 0}; 0 takes all)"
        log.info("--data.clips: %s", what if found < given else f"{found} clips")
    return store


def each_once(samples: Sequence[VideoSample]) -> list[VideoSample]:
    """Without clips that a split names again, for the same event: they would share a line."""
    _, first = np.unique(keys_of(samples), return_index=True)
    if len(first) < len(samples):
        again = np.setdiff1d(np.arange(len(samples)), first, assume_unique=True)
        named = ", ".join(f"{samples[number].id} ({samples[number].path})" for number in again[:MAX_NAMED])
        more = ", ..." if len(again) > MAX_NAMED else ""
        log.warning("%d clips are given more than once and done once: again in %s%s", len(again), named, more)
    return [samples[number] for number in np.sort(first)]


def limit_per_event(samples: Iterable[VideoSample], num_videos: int | None) -> list[VideoSample]:
    """The first clips of each event of a prepared split; 0 or None: all."""
    groups: dict[str | None, list[VideoSample]] = {}
    for sample in samples:
        groups.setdefault(sample.event, []).append(sample)
    return [
        sample
        for event, group in groups.items()
        for sample in _take(group, num_videos or 0, f"event {event}" if event else "the folder")
    ]


def _samples(paths: Iterable[Path], event: str | None) -> list[VideoSample]:
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = list_clips(path)
            if not found:
                raise ValueError(f"the folder {path} has no clips; give one that holds .mp4, .avi, .gif ... files")
            log_other_files(path)
            files += found
        elif path.exists() or path.is_symlink():  # a pipe, say, will be failed by its reader
            files.append(path)
        else:
            raise ValueError(f"there is no clip or folder {path}; check the path")
    return [loose_sample(file, event) for file in files]


def _take(samples: list[VideoSample], limit: int, what: str) -> list[VideoSample]:
    if limit < 0:
        raise _negative(limit)
    if limit and limit < len(samples):
        log.info("%s: %d of %d clips taken (num_videos=%d; 0 takes all)", what, limit, len(samples), limit)
        return samples[:limit]
    log.info("%s: %d clips", what, len(samples))
    return samples


def _negative(limit: int) -> ValueError:
    return ValueError(f"num_videos={limit} is negative; give how many clips per event, or 0 for all")
