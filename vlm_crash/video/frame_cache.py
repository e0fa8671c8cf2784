"""Decoded, resized frames on disk: a clip is decoded once, however often and by whatever process it is wanted.

Enters: a clip's path, the rule that chooses its frames, their size, and how to read it. Leaves: its frames.
Must hold: frames from the cache are those that reading would give (bit for bit in the lossless formats; of a low clip
the rows that resizing adds are not kept, they are made again); a clip that
has changed is read again; a damaged file is never believed; a cache that cannot be written costs time and nothing else;
the clip's own file is touched in a process that can be killed alone, for it may lie on a disk that does not answer.

An entry is named by what decides its pixels: the clip's content, the sampling rule, the size, the reader, the format,
the versions of the libraries that decode and resize, and our own code that does. A clip's content is hashed once and
known again by its inode, size and times.
"""

# Suffixes: F frames, H height, W width, C colour channels.

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from vlm_crash import __version__
from vlm_crash.video.cache_folder import CacheFolder, TooLargeError
from vlm_crash.video.container import ClipInfo
from vlm_crash.video.frame_formats import FRAME_FORMATS
from vlm_crash.video.guarded import CLIP_TIMEOUT_S, content_hash, signature
from vlm_crash.video.image_transform import resized, to_be_resized
from vlm_crash.video.reader import Frames

logger = logging.getLogger(__name__)

GIB = 2**30
_MAGIC = b"VCFRAME1"
_LAYOUT = 4  # of an entry; a change of what is read or how it is kept takes the next number, which finds no older one
_HEAD = np.dtype([("magic", "S8"), ("checksum", "<u4"), ("header", "<u4")])
#: A file that was changed a moment ago could change again within the same tick of the clock.
_SETTLED_S = 2.0
_DECIDING = ("av", "decord", "torch", "torchcodec", "torchvision")
#: Our own modules that decide which pixels a frame has, beside this one.
_DECIDING_CODE = (
    *("frame_times", "mpeg4", "packets"),
    *("container", "frame_formats", "frame_sampling", "frame_stream", "image_transform", "keyframes", "motion"),
    *("other_readers", "pixels", "reader", "reused_memory"),
)


@dataclass(frozen=True)
class CacheSettings:
    """Where decoded frames are kept.

    Args:
        folder: for the frames; best on a fast local disk. Runs may share it, also at the same time.
        max_gib: most GiB of it; beyond, the clips that were not used for longest are decoded again.
        format: lz4 (lossless, quick), zstd (lossless, two thirds of lz4), raw (lossless, largest), webp (lossless, as
            small as zstd, slow) or jpeg (not lossless, less than half of zstd).
    """

    folder: Path
    max_gib: float = 100.0
    format: str = "lz4"

    def __post_init__(self) -> None:
        if self.format not in FRAME_FORMATS:
            raise ValueError(
                f"format={self.format!r} is not one of {list(FRAME_FORMATS)}; set --data.cache.format to one of them"
            )
        if not self.max_gib > 0:  # nan is not
            raise ValueError(f"max_gib={self.max_gib} is not above 0; set --data.cache.max_gib to 50, say")
        try:
            is_other = Path(self.folder).exists() and not Path(self.folder).is_dir()
        except OSError as error:  # it lies in a folder of somebody else's
            raise ValueError(
                f"{self.folder} cannot be looked at ({error.strerror}); set --data.cache.folder to another"
            ) from error
        if is_other:
            raise ValueError(f"{self.folder} is not a folder; set --data.cache.folder to one")


class FrameCache:
    """Frames by clip content, sampling rule and size.

    Args:
        settings: where, how much, and in which format.
    """

    def __init__(self, settings: CacheSettings) -> None:
        self.settings = settings
        self.files = CacheFolder(Path(settings.folder), int(min(settings.max_gib, 2**30) * GIB))
        self._writes, self._has_said_large = True, False

    def read(
        self, path: Path, sampling: Mapping[str, Any], image_size: int, reader: str, decode: Callable[[], Frames],
        timeout_s: float | None = CLIP_TIMEOUT_S,
    ) -> Frames:  # fmt: skip
        """Frames of a clip, [F, image_size, image_size, 3]: out of the cache, else decoded, resized and kept.

        Args:
            path: of the clip.
            sampling: the rule that chooses the frames, as plain JSON values.
            image_size: side of the square, in pixels.
            reader: its name.
            decode: reads the clip; its frames may be as `to_be_resized` leaves them.
            timeout_s: most seconds to look at the file, and again to hash it; None or 0: no limit.

        Raises:
            UnreadableClipError: the clip cannot be read, or the file does not answer (a dead network disk).
        """
        before = signature(path, timeout_s)
        name = self._name(self._content(path, before, timeout_s), sampling, image_size, reader)
        frames = self._kept(path, name)
        if frames is not None:
            if frames.damage is not None:  # as reading says it, each time
                logger.warning("%s: damaged: %s", path, frames.damage)
            return replace(frames, frames_FHWC=resized(frames.frames_FHWC, image_size))
        frames = decode()
        frames = replace(frames, frames_FHWC=to_be_resized(frames.frames_FHWC, image_size))
        if self._writes and signature(path, timeout_s) == before:  # else the name may be another clip's
            header, parts = _packed(frames, self.settings.format)
            self._write("frames", name, _sealed(header, parts))
            if not FRAME_FORMATS[self.settings.format].is_lossless:  # the first epoch sees what the others will
                payload = np.frombuffer(b"".join(parts), np.uint8)
                frames = replace(frames, frames_FHWC=_unpacked(header, payload))
        return replace(frames, frames_FHWC=resized(frames.frames_FHWC, image_size))

    def _name(self, content: str, sampling: Mapping[str, Any], image_size: int, reader: str) -> str:
        deciding = {
            "layout": _LAYOUT, "clip": content, "sampling": dict(sampling), "image_size": image_size,
            "reader": reader, "format": self.settings.format, "versions": _versions(),
        }  # fmt: skip
        return _hashed(json.dumps(deciding, sort_keys=True))

    def _content(self, path: Path, seen: tuple[int, ...], timeout_s: float | None) -> str:
        """The hash of a clip's bytes: of the same file as before it is known without reading them."""
        name = _hashed(f"{os.fspath(path.absolute())!r} {seen}")
        known = None
        with contextlib.suppress(OSError):  # hashed again, then
            known = self.files.read("clips", name)
        if known is not None:
            text = known.tobytes().decode("ascii", "replace")
            if text[64:] == _hashed(name + text[:64]):  # of this file, and whole
                return text[:64]
        content = content_hash(path, timeout_s)
        settled = abs(_now() - max(seen[2:], default=0) / 1e9) > _SETTLED_S
        if self._writes and settled and signature(path, timeout_s) == seen:
            self._write("clips", name, [(content + _hashed(name + content)).encode("ascii")])
        return content

    def _kept(self, path: Path, name: str) -> Frames | None:
        """Frames of an entry; None where there is none, or it is damaged (then it goes)."""
        try:
            content = self.files.read("frames", name)
            if content is None:
                return None
            header, payload = _opened(content)
            return replace(_frames(header, path), frames_FHWC=_unpacked(header, payload))
        except _Damaged as error:
            reason = str(error)
        except OSError as error:
            reason = error.strerror or str(error)
        logger.warning("%s: its cached frames cannot be used (%s); the clip is decoded again", path, reason)
        self.files.remove("frames", name)
        return None

    def _write(self, kind: str, name: str, parts: list[Any]) -> None:
        """Keep a file. A disk that is full, or not ours, ends no run: it is said once, and the clips are decoded."""
        try:
            self.files.write(kind, name, parts)
        except TooLargeError as error:  # of this clip; others may fit
            if not self._has_said_large:
                logger.warning(
                    "%s, so it is decoded each time, and so is any other that is too large; set "
                    "--data.cache.max_gib higher",
                    error,
                )  # fmt: skip
            self._has_said_large = True
        except OSError as error:
            self._writes = False
            logger.warning(
                "the frame cache %s cannot be written (%s), so nothing more is kept there and clips are decoded each "
                "time; free some space, or set --data.cache.folder elsewhere",
                self.settings.folder, error.strerror or error,
            )  # fmt: skip


class _Damaged(Exception):
    """An entry that is not what was written."""


def _packed(frames: Frames, format: str) -> tuple[dict[str, Any], list[Any]]:
    parts = FRAME_FORMATS[format].encode(frames.frames_FHWC)
    info = {name: value for name, value in vars(frames.info).items() if name != "path"}
    rest = {name: value for name, value in vars(frames).items() if name not in ("frames_FHWC", "info")}
    header = {
        "format": format, "shape": frames.frames_FHWC.shape, "lengths": [len(part) for part in parts], "info": info,
        "rest": rest,
    }  # fmt: skip
    return header, parts


def _sealed(header: Mapping[str, Any], parts: list[Any]) -> list[Any]:
    """What stands in the file: the head with a checksum of the header's length and of all that follows."""
    text = json.dumps(header, default=_plain).encode()
    checksum = zlib.crc32(text, _length_checksum(len(text)))
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return [np.array((_MAGIC, checksum, len(text)), _HEAD).tobytes(), text, *parts]


def _length_checksum(length: int) -> int:
    """The head says where the header ends: a bit of that would part the file elsewhere."""
    return zlib.crc32(length.to_bytes(4, "little"))


def _opened(content: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
    """Header and payload of a file; _Damaged where it is not what was written."""
    if len(content) < _HEAD.itemsize:
        raise _Damaged("it is cut off")
    head, rest = content[: _HEAD.itemsize].view(_HEAD)[0], content[_HEAD.itemsize :]
    end = int(head["header"])
    if head["magic"] != _MAGIC or zlib.crc32(rest.data, _length_checksum(end)) != head["checksum"]:
        raise _Damaged("its checksum is another")
    header: dict[str, Any] = json.loads(rest[:end].tobytes())
    return header, rest[end:]


def _unpacked(header: Mapping[str, Any], payload: np.ndarray) -> np.ndarray:
    return FRAME_FORMATS[header["format"]].decode(payload, header["lengths"], tuple(header["shape"]))


def _frames(header: Mapping[str, Any], path: Path) -> Frames:
    """The record of an entry, without its pixels."""
    rest: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in header["rest"].items()
    }
    return Frames(np.empty(0, np.uint8), info=ClipInfo(path=path, **header["info"]), **rest)


def _now() -> float:
    return time.time()


@cache
def _versions() -> dict[str, str]:
    """Of what decodes and resizes: another one may give another grey level."""
    found = {}
    for name in _DECIDING:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # decord is not built for every platform
            found[name] = ""
    return found | {"vlm_crash": __version__, "code": _code_hash(Path(__file__).parent)}


def _code_hash(folder: Path) -> str:
    """Of the source of our own reading: a version number stands for many states of it."""
    found = hashlib.blake2b(digest_size=8)
    for name in _DECIDING_CODE:
        source = (folder / f"{name}.py").read_bytes()
        found.update(len(source).to_bytes(8, "little") + source)
    return found.hexdigest()


def _hashed(text: str) -> str:
    return hashlib.blake2b(os.fsencode(text), digest_size=20).hexdigest()


def _plain(value: Any) -> Any:
    """A number of numpy's as Python's."""
    return value.item()
