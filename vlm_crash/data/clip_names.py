"""Names of clips as an annotation CSV writes them -> the clips of a folder.

In: a header and cells, and the folder. Out: which columns name the clips, and by name the path, or why there is none.
Must hold: a name leads to one clip or to none; a CSV whose columns plainly name clips is not taken by row numbers.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vlm_crash.data.csv_table import Table, is_missing
from vlm_crash.data.problems import InputProblems, Problem
from vlm_crash.video.clip_files import VIDEO_SUFFIXES, list_clips, readable_name

#: Columns that may name the clip, in the order they are asked, cell by cell.
NAME_COLUMNS = ("video_id", "filename", "Video_name")
#: Where there is none of these, the first of those that name the clips of a list for `predict`.
PATH_COLUMNS = ("path", "file", "file_path", "filepath", "filename", "file_name", "video_path", "video", "clip")
#: Both in words, shortly.
NAMED_BY = f"{', '.join(NAME_COLUMNS)}; else path, file, video, clip and the like"
#: Of the cells of a column that names clips, this share is there: of words, and of bare numbers, which may be anything.
_MOST_WORDS, _MOST_NUMBERS = 0.5, 0.9
#: Fewer bare numbers than these are no list of names, however they fall.
_LEAST_NUMBERS = 10
#: Endings of files that lie beside clips; of another one that is no video's (.dav) a decoder may know.
_NO_CLIPS = frozenset(
    {".json", ".jsonl", ".csv", ".tsv", ".txt", ".md", ".xml", ".yaml", ".yml", ".html", ".pdf", ".log", ".parquet"}
    | {".srt", ".vtt", ".ass", ".gpx", ".kml", ".nmea", ".npy", ".npz", ".pkl", ".zip", ".gz", ".tar", ".7z", ".db"}
    | {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".thm", ".wav", ".mp3", ".m4a", ".aac", ".xlsx"}
)
#: Such a column has a cell in this share of the rows.
_FILLED = 0.9


@dataclass(frozen=True)
class Clips:
    """The clips of a folder, to be found by name."""

    folder: Path
    paths: tuple[Path, ...]

    @classmethod
    def of(cls, csv_path: Path, folder: Path) -> Clips:
        """InputProblems: the folder is not there, or has none."""
        title = f"the clips of {csv_path} cannot be used"
        remedy = "give the folder that holds the video files"
        try:
            paths = list_clips(folder)
        except FileNotFoundError as error:
            what = "it is a file" if folder.is_file() else "there is no such folder"
            raise InputProblems(title, [Problem(str(folder), None, "", what, remedy)]) from error
        if not paths:
            raise InputProblems(title, [Problem(str(folder), None, "", "there are no clips in the folder", remedy)])
        return cls(Path(folder), tuple(paths))

    @cached_property
    def by_name(self) -> Mapping[str, list[Path]]:
        """By `name_key` of the name."""
        return _by((name_key(path.name), path) for path in self.paths)

    @cached_property
    def by_stem(self) -> Mapping[str, list[Path]]:
        """By `name_key` of the name without ending."""
        return _by((name_key(path.stem), path) for path in self.paths)

    @cached_property
    def others_by_stem(self) -> Mapping[str, list[Path]]:
        """What else there is in the folder, by name without ending."""
        known = set(self.paths)
        return _by((composed(path.stem), path) for path in sorted(self.folder.iterdir()) if path not in known)

    def find(self, name: str) -> Path:
        """The clip of that name: as spelt, else the only one that differs in case or, for an id, in its suffix or both.

        An accent may be a letter's or a mark of its own (macOS), the path one of Windows; what looks like an ending
        may be part of the name ("1699.264"). Where there is none, the path that it would have.
        """
        path = self.folder / name
        if is_file(path):
            return path
        wanted = Path(name.replace("\\", "/"))
        same = self.by_name.get(name_key(wanted.name), [])
        same = same or (self._of_stem(wanted.stem) if wanted.suffix == ".mp4" else [])
        same = same or self.by_name.get(name_key(wanted.name + ".mp4"), [])
        ending = Path(wanted.stem).suffix.lower()
        if not same and wanted.suffix == ".mp4" and ending and ending not in _NO_CLIPS:  # one that we do not know
            same = [other for other in (self.folder / wanted.with_suffix("").name,) if is_file(other)]
        return same[0] if len(same) == 1 else path

    def _of_stem(self, stem: str) -> list[Path]:
        """Those of that name without ending: in the same case, else in another."""
        found = self.by_stem.get(name_key(stem), [])
        return [path for path in found if composed(path.stem) == composed(stem)] or found

    def why_not(self, name: str) -> tuple[str, str]:
        """Of a name under which `find` has found no file: what is the matter, and what to do."""
        path = self.folder / name
        copy = "copy the clip there or correct the name"
        try:
            if path.is_dir():
                return f"{name} in {self.folder} is a folder", copy
            if path.is_symlink():
                return f"{name} in {self.folder} is a link to nowhere", "bring back the file that it leads to"
            if path.exists():
                return f"{name} in {self.folder} is no file but a pipe or the like", copy
        except OSError:  # no file can have that name
            pass
        spelt = Path(name.replace("\\", "/")).stem
        stem, several = composed(spelt), [clip.name for clip in self._of_stem(spelt)]
        if len(several) > 1 and name.endswith(".mp4"):
            return f"no {name} in {self.folder}, and several of that name ({', '.join(several)})", "add its ending"
        for other in self.others_by_stem.get(stem, ()):
            if is_file(other):
                there = f"there is {readable_name(other.name)}, whose ending is no video's"
                return f"no such clip in {self.folder}; {there}", "write that name, if it is the clip"
        return f"no such clip in {self.folder}", copy


def _by(found: Iterable[tuple[str, Path]]) -> dict[str, list[Path]]:
    by = defaultdict(list)
    for key, path in found:
        by[key].append(path)
    return dict(by)


def composed(name: str) -> str:
    """The same name with each accent and its letter as one, however it was written."""
    return unicodedata.normalize("NFC", name)


def name_key(name: str) -> str:
    """What names have in common that differ in case or in how accents are written.

    >>> name_key("Zu\\u0308rich.MP4") == name_key("z\\xfcrich.mp4")
    True
    """
    return composed(name).casefold()


def is_file(path: Path) -> bool:
    """Whether it is; not where that cannot be looked at."""
    try:
        return path.is_file()
    except OSError:  # a folder that may not be entered, a name that is too long
        return False


def clip_name(cells: Sequence[str], columns: Sequence[int], row: int) -> str | None:
    """File name that a row's name columns give; the row number where there are none; None: no cell has a name.

    >>> clip_name(["7"], [0], row=1), clip_name(["7.0"], [0], row=1), clip_name(["a.AVI"], [0], row=1)
    ('7.mp4', '7.mp4', 'a.AVI')
    >>> clip_name(["Clear"], [], row=3)
    '3.mp4'
    """
    if not columns:
        return f"{row}.mp4"
    column = name_column(cells, columns)
    if column is None:
        return None
    name = cells[column].strip()
    if Path(name).suffix.lower() in VIDEO_SUFFIXES:
        return name
    return re.sub(r"^(\d+)\.0+$", r"\1", name) + ".mp4"  # "7.0": a spreadsheet took the id for a number


def name_column(cells: Sequence[str], columns: Sequence[int]) -> int | None:
    """The one of these columns that a row has its clip's name from: the first that is filled in."""
    return next((index for index in columns if not is_missing(cells[index])), None)


def name_columns(table: Table, taken: Collection[int]) -> tuple[int, ...]:
    """Columns that name the clips.

    Args:
        taken: of fields and the like; of PATH_COLUMNS, which are words of every day, none of these is meant.
    """
    names = tuple(index for name in NAME_COLUMNS if (index := table.column([name])) is not None)
    if names:
        return names
    others = ((name, table.column([name])) for name in PATH_COLUMNS)
    return next(((index,) for _, index in others if index is not None and index not in taken), ())


def check_row_numbers(table: Table, taken: Collection[int], clips: Clips) -> None:
    """Of a CSV without a column of names: InputProblems where the cells of one plainly are names of the clips."""
    for index, column in enumerate(table.header):
        if index in taken:
            continue
        cells = {row: cells[index].strip() for row, cells in table.rows.items() if not is_missing(cells[index])}
        if len(cells) >= _FILLED * len(table.rows) and _are_names(cells, clips):
            said = "; ".join(f"row {row} has {cell!r}" for row, cell in list(cells.items())[:2])
            raise InputProblems(
                "the annotations cannot be used",
                [Problem(str(table.path), None, "", f"no column is called as one that names the clips "
                         f"({NAMED_BY}), and the column {column!r} seems to ({said})",
                         "call it video_id; if it does not name them, take it out: then row 1 is 1.mp4, and so on")],
            )  # fmt: skip


def _are_names(cells: Mapping[int, str], clips: Clips) -> bool:
    names = {row: clip_name([cell], [0], row) or "" for row, cell in cells.items()}
    is_there = [is_file(clips.find(name)) for name in names.values()]
    if not all(Path(name).stem.isdigit() and name.endswith(".mp4") for name in names.values()):
        return sum(is_there) >= _MOST_WORDS * len(is_there)
    numbers = {row: int(Path(name).stem) for row, name in names.items()}
    if all(number == row for row, number in numbers.items()):  # names the same clip as the row number
        return False
    if all(number == row - 1 for row, number in numbers.items()) and not all(is_there):  # a table's index, from 0 on
        return False
    if len(numbers) < _LEAST_NUMBERS or len(set(numbers.values())) < len(numbers):
        return False
    # Of the rows nearly all have their clip, of the clips nearly all their row: a speed or a distance has gaps.
    return sum(is_there) >= _MOST_NUMBERS * max(len(is_there), len(clips.paths))
