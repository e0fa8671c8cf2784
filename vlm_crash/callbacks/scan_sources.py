"""Whether the recordings of a scan are still the files that were read.

Enters: the recordings that are asked for, and what an older run.json says of its own. Leaves: size, time stamp and hash
of each, and what has changed. Must hold: a file of other content is never taken for the one that was read where its
size or its time stamp tells; one that was only touched or copied is the same.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import Any

from vlm_crash.schema.records import VideoSample
from vlm_crash.video.clip_files import readable_name
from vlm_crash.video.container import UnreadableClipError
from vlm_crash.video.guarded import content_hash

log = logging.getLogger(__name__)

#: A disk that reads slower counts as one that hangs.
_LEAST_BYTES_PER_S = 10_000_000


def told_files(recordings: Sequence[VideoSample]) -> dict[str, Any]:
    """What run.json says of them: `recordings`, [id, path, size] of each; `files`, {id: {mtime_ns, sha256: None}}."""
    told: list[list[Any]] = []
    files: dict[str, dict[str, Any]] = {}
    for recording in recordings:
        size, mtime_ns = _stamp(recording)
        told.append([recording.id, readable_name(recording.path), size])
        files[recording.id] = {"mtime_ns": mtime_ns, "sha256": None}
    return {"recordings": told, "files": files}


def _stamp(recording: VideoSample) -> tuple[int | None, int | None]:
    """Size in bytes and time stamp in ns; None: no file."""
    try:
        status = recording.path.stat()
    except OSError:
        return None, None
    return status.st_size, status.st_mtime_ns


def hasher(recordings: Sequence[VideoSample], timeout_s: float | None) -> Callable[[str], str | None]:
    """id -> sha256 of the recording's bytes, computed once; None: it cannot be read.

    Args:
        timeout_s: seconds that a recording may take beyond what its size needs; None: no limit.
    """
    by_id = {recording.id: recording for recording in recordings}

    @cache
    def hash_of(name: str) -> str | None:
        size, _ = _stamp(by_id[name])
        if size is None:
            return None
        limit = None if timeout_s is None else timeout_s + size / _LEAST_BYTES_PER_S
        try:
            return content_hash(by_id[name].path, limit)
        except UnreadableClipError as error:
            log.warning("%s cannot be hashed: %s", by_id[name].video, error.reason)
            return None

    return hash_of


def changed_files(
    old: Mapping[str, Any], run: Mapping[str, Any], hash_of: Callable[[str], str | None]
) -> dict[str, str]:
    """Recordings (their ids) that are not the files of the old run, and what was and is.

    Of equal size and another time stamp the hash decides. An old run that kept no time stamps is judged by the size.
    """
    before = {told[0]: told for told in old.get("recordings", [])}
    files = old.get("files", {})
    found = {}
    for name, path, size in (told[:3] for told in run["recordings"]):
        was = before.get(name, [name, path, size])
        stamp = files.get(name)
        if was[1] != path:
            found[name] = f"{was[1]} -> {path}"
        elif was[2] != size:
            found[name] = f"{path}: {_bytes(was[2])} -> {_bytes(size)}"
        elif stamp and stamp["mtime_ns"] != run["files"][name]["mtime_ns"] and _differs(hash_of(name), stamp["sha256"]):
            found[name] = f"{path}: {_bytes(size)} -> as many, of another content"
    return found


def _differs(now: str | None, before: str | None) -> bool:
    return before is None or now != before


def hashed_files(
    old: Mapping[str, Any] | None,
    run: Mapping[str, Any],
    changed: Collection[str],
    hash_of: Callable[[str], str | None],
) -> dict[str, dict[str, Any]]:
    """`files` of run.json with the hashes, those of recordings that are not asked for now included.

    Only what the old run has not hashed, or has with another time stamp, is read.
    """
    before = (old or {}).get("files", {})
    found = {name: dict(stamp) for name, stamp in run["files"].items()}
    for name, stamp in found.items():
        was = before.get(name)
        if was and name not in changed and was["mtime_ns"] == stamp["mtime_ns"]:
            stamp["sha256"] = was["sha256"]
    if new := [name for name, stamp in found.items() if stamp["sha256"] is None]:
        log.info("%d recordings are read through for their hashes, which tell a file that was replaced", len(new))
    for name in new:
        found[name]["sha256"] = hash_of(name)
    return {**before, **found}


def _bytes(size: int | None) -> str:
    return "no file" if size is None else f"{size:,} bytes"
