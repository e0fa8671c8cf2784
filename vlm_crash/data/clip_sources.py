"""Loose clips -> samples to predict, without annotations.

Enters: folders or files as a user names them. Leaves: samples in numeric order, whose event is the one the folder
stands for, or None.
"""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from vlm_crash.schema.records import VideoSample
from vlm_crash.video.clip_files import list_clips, log_other_files, readable_name

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


def samples_from_paths(paths: Iterable[Path], num_videos: int | None) -> list[VideoSample]:
    """Clips of folders and files whose event is not known.

    Args:
        num_videos: most clips in all; 0 or None: all.
    """
    return _take(_samples(paths, None), num_videos or 0, "--data.clips")


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
    return [
        VideoSample(
            id=f"{event or 'clip'}:{readable_name(file)}",
            video=readable_name(file.name),
            path=file,
            event=event,
            annotation=None,
            duration_s=None,
        )
        for file in files
    ]


def _take(samples: list[VideoSample], limit: int, what: str) -> list[VideoSample]:
    if limit < 0:
        raise ValueError(f"num_videos={limit} is negative; give how many clips per event, or 0 for all")
    if limit and limit < len(samples):
        log.info("%s: %d of %d clips taken (num_videos=%d; 0 takes all)", what, limit, len(samples), limit)
        return samples[:limit]
    log.info("%s: %d clips", what, len(samples))
    return samples
