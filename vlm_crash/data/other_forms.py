"""Annotation files of other datasets -> rows of one form.

Enters: CarCrashDataset's text file, a Nexar-style CSV, DoTA's JSON, or a folder with a folder of clips per event.
Leaves: an OtherRow per clip, with what the file says and nothing else: a label in the file's own word, cells by the
name of our field, the official split, and the video that the clip was cut from. Must hold: a line that is not of the
form is a Problem with its number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from vlm_crash.data.clip_names import composed
from vlm_crash.data.csv_table import Table, is_missing, read_table
from vlm_crash.data.problems import InputProblems, Problem
from vlm_crash.video.clip_files import is_clip_name, list_clips, log_other_files

#: Their names of our splits.
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "test-public", "test-private"), "test"),
}


@dataclass(frozen=True)
class OtherRow:
    """What a file says of one clip.

    Args:
        row: its number, from 1.
        clip: path in the clip folder; without a suffix it may have any.
        label: in the file's own word.
        cells: by the name of our field, as they stand.
        split: train, val or test; "": the file does not say.
        group: the video that the clip was cut from; "": the file does not say.
        meaning: a wording of our events that the dataset's authors give for the label; "": the label itself.
    """

    row: int
    clip: str
    label: str
    cells: Mapping[str, str] = field(default_factory=dict)
    split: str = ""
    group: str = ""
    meaning: str = ""


@lru_cache(maxsize=64)
def clips_by_stem(folder: Path) -> dict[str, list[Path]]:
    """The videos of a folder by name without suffix; none where there is no such folder, or it may not be read."""
    found: dict[str, list[Path]] = {}
    try:
        for entry in folder.iterdir():
            if is_clip_name(entry):
                found.setdefault(composed(entry.stem), []).append(entry)
    except OSError:
        return {}
    return found


_Read = tuple[list[OtherRow], list[Problem]]

_CCD_LINE = re.compile(r"([^,]+),\s*\[([01,\s]*)\]\s*,([^,]*),([^,]*),([^,]*),([^,]*),([^,]*)")


def read_ccd(path: Path, clips: Path) -> _Read:
    """CarCrashDataset's Crash-1500.txt: vidname, binlabels, startframe, youtubeID, timing, weather, egoinvolve."""
    rows, problems = [], []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip() or line.startswith("vidname"):
            continue
        found = _CCD_LINE.fullmatch(line.strip())
        if found is None:
            what = "it is not vidname,[binlabels],startframe,youtubeID,timing,weather,egoinvolve"
            problems.append(Problem(str(path), number, "", what, "correct the line; it is left out"))
            continue
        name, _labels, _start, video, timing, weather, _ego = (part.strip() for part in found.groups())
        cells = {"Light_condition": timing, "Weather": weather}
        rows.append(OtherRow(number, name, "accident", cells, group=video))
    return rows, problems


#: Columns of a Nexar-style CSV, the first that is there. The label of the challenge is `target`.
NEXAR_COLUMNS = {
    "clip": ("path", "file_name", "filename", "video_path", "video", "video_id", "id"),
    "label": ("label", "target", "event", "class"),
    "split": ("split", "subset"),
    "Light_condition": ("light_conditions", "light_condition"),
    "Weather": ("weather",),
}


def read_nexar(path: Path, clips: Path) -> _Read:
    """A CSV with a clip and its label a row, perhaps its split, light and weather; other columns are not read."""
    table, problems = read_table(path)
    place = {name: table.column(columns) for name, columns in NEXAR_COLUMNS.items()}
    for name in ("clip", "label"):
        if place[name] is None:
            what = f"it has none of the columns {', '.join(NEXAR_COLUMNS[name])} (it has {', '.join(table.header)})"
            raise _unusable(path, what, f"name the column of the {name} so")
    rows = []
    for number, cells in table.rows.items():
        said = {name: _cell(table, cells, index) for name, index in place.items()}
        split = SPLIT_NAMES.get(said["split"].lower(), "")
        if not said["clip"] or (said["split"] and not split):
            what = (
                f"split {said['split']!r} is none of {', '.join(SPLIT_NAMES)}" if said["clip"] else "it names no clip"
            )
            problems.append(Problem(str(path), number, said["clip"], what, "correct the row; it is left out"))
            continue
        known = {name: said[name] for name in ("Light_condition", "Weather") if said[name]}
        label = re.sub(r"^(\d+)\.0+$", r"\1", said["label"])  # 1.0: a table with empty cells took it for a float
        rows.append(OtherRow(number, _nexar_clip(said["clip"], clips), label, known, split))
    return rows, problems


def _nexar_clip(name: str, clips: Path) -> str:
    """A number as an id: the challenge's files have it in five digits."""
    if name.isascii() and name.isdigit() and name not in clips_by_stem(clips):
        return name.lstrip("0").zfill(5)
    return name


def _cell(table: Table, cells: tuple[str, ...], index: int | None) -> str:
    return "" if index is None or is_missing(cells[index]) else cells[index].strip()


#: DoTA's classes that its paper (arXiv 2004.03044, table of categories) words as a collision with something; the others
#: are leaving the roadway, and unknown.
_DOTA_COLLISIONS = (
    "start_stop_or_stationary", "moving_ahead_or_waiting", "lateral", "oncoming", "turning", "pedestrian", "obstacle",
)  # fmt: skip


def read_dota(path: Path, clips: Path) -> _Read:
    """DoTA's metadata_train.json or metadata_val.json: by clip its anomaly_class, subset, frames and times."""
    try:
        said = json.loads(_text(path))
    except ValueError as error:
        raise _unusable(
            path, f"it is no JSON ({error})", "give DoTA's metadata_train.json or metadata_val.json"
        ) from error
    if not isinstance(said, dict):
        raise _unusable(path, "it is no object of clips", "give DoTA's metadata_train.json or metadata_val.json")
    rows, problems = [], []
    for number, (name, entry) in enumerate(said.items(), start=1):
        found = str(entry.get("anomaly_class") or "") if isinstance(entry, dict) else ""
        split = str(entry.get("subset") or "") if isinstance(entry, dict) else ""
        if not found or (split and split.lower() not in SPLIT_NAMES):
            what = f"subset {split!r} is none of {', '.join(SPLIT_NAMES)}" if found else "it has no anomaly_class"
            problems.append(Problem(str(path), number, name, what, "correct the entry; it is left out"))
            continue
        label = found.split(":")[-1].strip()  # "ego: turning" and "other: turning": who was in it
        meaning = "collision" if label in _DOTA_COLLISIONS else ""
        cells = {"Crash_with": "Pedestrian"} if label == "pedestrian" else {}
        video = re.sub(r"_\d+$", "", name)  # YouTube's id, then the first frame
        rows.append(OtherRow(number, name, label, cells, SPLIT_NAMES.get(split.lower(), ""), video, meaning))
    return rows, problems


def read_folders(path: Path | None, clips: Path) -> _Read:
    """A folder with a folder of clips per event, or with folders train, val and test of such folders."""
    places = []
    for folder in sorted(entry for entry in clips.iterdir() if entry.is_dir()):
        split = SPLIT_NAMES.get(folder.name.lower(), "")
        inside = sorted(entry for entry in folder.iterdir() if entry.is_dir()) if split else [folder]
        places += [(split, entry) for entry in inside]
    for _, folder in places:
        log_other_files(folder)
    named = [(split, folder, clip) for split, folder in places for clip in list_clips(folder)]
    rows = [
        OtherRow(number, clip.relative_to(clips).as_posix(), folder.name, split=split)
        for number, (split, folder, clip) in enumerate(named, start=1)
    ]
    return rows, []


#: Forms by the name that `prepare --form` takes. All but folders need --annotations.
FORMS: Mapping[str, Callable[[Any, Path], _Read]] = {
    "ccd": read_ccd,
    "nexar": read_nexar,
    "dota": read_dota,
    "folders": read_folders,
}


def _text(path: Path) -> str:
    if not path.is_file():
        raise _unusable(path, "it does not exist", "give the dataset's annotation file")
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _unusable(path, f"it is not UTF-8 ({error.reason})", "save it as UTF-8") from error


def _unusable(path: Path, what: str, remedy: str) -> InputProblems:
    return InputProblems("the annotations cannot be used", [Problem(str(path), None, "", what, remedy)])
