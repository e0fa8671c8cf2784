"""What a clip's file tells without a look at its pictures: name, bytes, codec, frame size, frame rate, duration.

Enters: samples, and rows of clips.csv where `check` has made them. Leaves: a ClipMetadata for each sample whose file is
there, and a matrix of numbers for a classifier. Must hold: nothing is fitted here and nothing of the folder enters
(its name is the event in many datasets); what a container does not say is NaN, never 0.

A label that can be told from these numbers is a shortcut of the dataset: no model needs to watch a clip to know it.
Suffixes: N clips, P features.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from vlm_crash.data.clip_table import ClipRow, Key, Stamp, newest, rows_in
from vlm_crash.schema.records import VideoSample
from vlm_crash.video.guarded import CLIP_TIMEOUT_S, UnreadableClipError, probe

#: Words of a name, its suffix and the codec fall into so many columns by their checksum, so that no list is fitted.
NUM_WORD_BUCKETS = 16
#: Columns of `metadata_features`, in order.
FEATURE_NAMES = (
    "duration_s", "width", "height", "pixels", "fps", "bytes", "bitrate", "name_number", "name_digits", "name_length",
    *(f"name_or_codec_word_{bucket}" for bucket in range(NUM_WORD_BUCKETS)),
)  # fmt: skip
#: The same gathered as a reader would call them; for a message about which of them tells a label.
FEATURE_GROUPS: Mapping[str, tuple[str, ...]] = {
    "duration": ("duration_s",),
    "frame size": ("width", "height", "pixels"),
    "frame rate": ("fps",),
    "file size and bitrate": ("bytes", "bitrate"),
    "file name and codec": FEATURE_NAMES[7:],
}


@dataclass(frozen=True)
class ClipMetadata:
    """A file that is there, by its name and its container.

    Attributes:
        name: file name without folders, as the dataset spells it.
        num_bytes: size of the file.
        width, height: pixels; fps: frames a second; duration_s: seconds. NaN where the container cannot be read.
        codec: FFmpeg's name of it; "" where the container cannot be read.
    """

    name: str
    num_bytes: int
    width: float = math.nan
    height: float = math.nan
    fps: float = math.nan
    duration_s: float = math.nan
    codec: str = ""

    @property
    def bitrate(self) -> float:
        """Bits a second of the whole file; NaN without a duration."""
        return 8 * self.num_bytes / self.duration_s if self.duration_s > 0 else math.nan


def clip_metadata(
    samples: Iterable[VideoSample],
    rows: Mapping[Key, ClipRow] | None = None,
    timeout_s: float | None = CLIP_TIMEOUT_S,
) -> list[ClipMetadata | None]:
    """One entry a sample, in their order; None: there is no such file.

    Args:
        samples: `path` says where each file lies.
        rows: of the dataset's clips.csv (`clip_table.read_rows`). A row that speaks of the file as it is now, there or
            in a clips.csv beside the clip, saves reading its container.
        timeout_s: most seconds to read a container; None or 0: no limit.

    Raises:
        ValueError: a clips.csv of ours beside the clips is damaged.
        RuntimeError: the reading process cannot be started.
    """
    samples = list(samples)
    beside = rows_in(sample.path.parent for sample in samples)
    found: list[ClipMetadata | None] = []
    for sample in samples:
        name, stamp = PurePosixPath(sample.video).name, Stamp.of(sample.path)
        if not stamp.bytes or not sample.path.is_file():
            found.append(None)
            continue
        known = ((rows or {}).get(Key.of(sample.event, sample.video)),
                 beside[sample.path.parent].get(Key.of(None, sample.path.name)))  # fmt: skip
        row = newest(row for row in known if row is not None and row.stamp == stamp and row.cells["size"])
        found.append(_of_container(name, sample.path, timeout_s) if row is None else _of_row(name, row))
    return found


def _of_row(name: str, row: ClipRow) -> ClipMetadata:
    def number(column: str) -> float:
        return float(row.cells[column]) if row.cells[column] else math.nan

    width, height = (float(side) for side in row.cells["size"].split("x"))
    return ClipMetadata(
        name, int(row.cells["bytes"]), width, height, number("fps"), number("duration_s"), row.cells["codec"]
    )


def _of_container(name: str, path: Path, timeout_s: float | None) -> ClipMetadata:
    num_bytes = path.stat().st_size
    try:
        info = probe(path, timeout_s)
    except UnreadableClipError:
        return ClipMetadata(name, num_bytes)
    # Rounded as clips.csv has them: where a number comes from must not tell clips apart.
    return ClipMetadata(
        name, num_bytes, info.width, info.height, round(info.fps, 3), round(info.duration_s, 3), info.codec
    )


def metadata_features(clips: Sequence[ClipMetadata]) -> NDArray[np.float64]:
    """[N, P], columns as FEATURE_NAMES; NaN where a container does not say, or a name has no number.

    >>> from dataclasses import replace
    >>> a = ClipMetadata("night_12.mp4", 1000, 64, 48, 25.0, 2.0, "h264")
    >>> features = metadata_features([a, replace(a, name="day.mp4", duration_s=math.nan)])
    >>> features[0, :10].tolist()
    [2.0, 64.0, 48.0, 3072.0, 25.0, 1000.0, 4000.0, 12.0, 2.0, 8.0]
    >>> [FEATURE_NAMES[p] for p in np.flatnonzero(np.isnan(features[1]))]
    ['duration_s', 'bitrate', 'name_number']
    """
    return np.array([_features(clip) for clip in clips], dtype=np.float64).reshape(len(clips), len(FEATURE_NAMES))


def _features(clip: ClipMetadata) -> list[float]:
    path = PurePosixPath(clip.name)
    numbers = re.findall(r"\d+", path.stem)
    words = [0.0] * NUM_WORD_BUCKETS
    for word in (*re.findall(r"[^\W\d_]+", path.stem.casefold()), path.suffix.casefold(), f"codec {clip.codec}"):
        words[zlib.crc32(word.encode()) % NUM_WORD_BUCKETS] += 1
    return [
        clip.duration_s, clip.width, clip.height, clip.width * clip.height, clip.fps, float(clip.num_bytes),
        clip.bitrate, _number(numbers), float(sum(map(len, numbers))), float(len(path.stem)), *words,
    ]  # fmt: skip


def _number(numbers: Sequence[str]) -> float:
    """The last number of a name, by which most datasets count their clips; of a longer one (a date) the last digits."""
    return float(int(numbers[-1][-12:])) if numbers else math.nan
