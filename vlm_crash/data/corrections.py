"""Corrections of labels, as the report's page gives them: a CSV that is laid over the annotation CSVs.

Enters: rows of the annotations, and `event,video,field,old,new,note,annotator` by row. Leaves: the same rows with the
new values, and a record of every change. Must hold: the annotation CSVs are not touched; a correction that does not
fit what the dataset says changes nothing, and all of them are named at once; corrections of an earlier run stay. The
event of a clip is corrected after its fields, which are those of the event that it had (corrected_labels.py).
"""

from __future__ import annotations

import csv
import io
import json
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path

from vlm_crash.data.annotations import AnnotatedRow
from vlm_crash.data.corrected_labels import EVENT_FIELD, CorrectedLabels
from vlm_crash.data.csv_table import as_meant, harmless, read_table
from vlm_crash.data.problems import InputProblems, Problem
from vlm_crash.schema.fields import MAX_COUNT, UNKNOWN, Field, Schema
from vlm_crash.schema.records import cell_value
from vlm_crash.schema.wording import nearest, normal_form

logger = logging.getLogger(__name__)

CORRECTIONS_FILE = "corrections.csv"
APPLIED_FILE = "corrections_applied.json"


@dataclass(frozen=True)
class Correction:
    """One row: what a person says a field of a clip should be."""

    event: str
    video: str
    field: str
    old: str
    new: str
    note: str
    annotator: str

    @property
    def place(self) -> tuple[str, str, str]:
        return self.event, self.video, self.field


COLUMNS = tuple(one.name for one in fields(Correction))
_Numbered = tuple[str, int, Correction]  # its file, its row


@dataclass(frozen=True)
class Corrected:
    """Annotations with their corrections.

    Attributes:
        rows: all of them, in their order.
        corrections: those of earlier runs, then the new ones, to be laid over the annotations in this order. A field
            may be changed, changed back and changed again: then a row is there twice.
        num_changed: events, and values of fields, that are others than the annotation CSVs say.
        places: (event, name of the clip), as it is and as it was -> its row.
        left_out: of each correction of an event the known values that the new event has no field for.
    """

    rows: list[AnnotatedRow]
    corrections: tuple[Correction, ...] = ()
    num_changed: int = 0
    places: Mapping[tuple[str, str], AnnotatedRow] = field(default_factory=dict)
    left_out: Mapping[Correction, Mapping[str, str]] = field(default_factory=dict)

    def files(self, out: Path) -> dict[Path, str]:
        """What is written beside the dataset: the corrections, and what they came to; nothing where there are none."""
        if not self.corrections:
            return {}
        applied = [
            {
                **dict(zip(COLUMNS, astuple(one), strict=True)),
                "id": row.sample.id,
                "csv": row.file,
                "row": row.row,
                **({"left_out": self.left_out[one]} if one in self.left_out else {}),
            }
            for one in self.corrections
            if (row := self.places.get((one.event, one.video))) is not None
        ]
        return {
            out / CORRECTIONS_FILE: corrections_csv(self.corrections),
            out / APPLIED_FILE: json.dumps(applied, ensure_ascii=False, indent=1) + "\n",
        }


def corrections_csv(corrections: Sequence[Correction]) -> str:
    """The text of a corrections.csv, as `prepare --corrections` takes it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([harmless(cell) for cell in astuple(one)] for one in corrections)
    return text.getvalue()


def correct(
    rows: Sequence[AnnotatedRow], schema: Schema, out: Path, given: Path | None, folders: Mapping[str, Path]
) -> Corrected:
    """Lay the corrections of earlier runs into this folder, and then the given ones, over the annotations.

    Args:
        rows: of all events.
        out: folder of the dataset, which may hold corrections.csv already.
        given: new ones; None: none.
        folders: event -> where its clips lie, of the events of the dataset.

    Raises:
        InputProblems: (a ValueError) with every row that does not fit: an unknown event, clip, field or term, an `old`
            that is not what the dataset says, or two rows that contradict each other.
    """
    problems: list[Problem] = []
    kept = _read(out / CORRECTIONS_FILE, problems) if (out / CORRECTIONS_FILE).is_file() else []
    new = _read(given, problems) if given is not None else []
    if not kept and not new and not problems:
        return Corrected(list(rows))
    labels = CorrectedLabels(rows, schema, folders)
    left_out: dict[Correction, Mapping[str, str]] = {}
    problems += _lay(kept, True, labels, left_out)
    known = {one for *_, one in kept}
    new = [numbered for numbered in new if numbered[2] not in known or not _says_nothing_new(numbered[2], labels)]
    new.sort(key=lambda numbered: _is_of_event(numbered[2], schema))
    problems += _contradictions(new)
    problems += _lay(new, False, labels, left_out)
    result = [labels.row(n) for n in range(len(rows))]
    problems += _emptied(rows, result)
    if problems:
        raise InputProblems("the corrections do not fit the dataset; nothing was written", problems)
    added = dict.fromkeys(one for *_, one in new)
    places = {key: result[n] for key, n in labels.at.items()}
    kept_and_added = (*(one for *_, one in kept), *added)
    return Corrected(result, kept_and_added, sum(map(_num_changed, rows, result)), places, left_out)


def _num_changed(before: AnnotatedRow, after: AnnotatedRow) -> int:
    """Values that were there and are others, the event among them."""
    if before.sample.annotation is None or after.sample.annotation is None:
        return 0
    old, new = before.sample.annotation.values, after.sample.annotation.values
    changed = sum(old.get(name, UNKNOWN) != value for name, value in new.items())
    return changed + (before.sample.event != after.sample.event)


def _emptied(rows: Sequence[AnnotatedRow], result: Sequence[AnnotatedRow]) -> Iterator[Problem]:
    for row, after in zip(rows, result, strict=True):
        if after.sample.annotation and not after.sample.annotation.known and row.sample.annotation.known:  # type: ignore[union-attr]
            what = "its corrections leave no field with a value"
            yield Problem(row.file, row.row, row.sample.video, what, "take one of them out")


def _is_of_event(one: Correction, schema: Schema) -> bool:
    """Whether a correction is of the event itself."""
    own = one.event in schema.event_names and one.field in schema.event(one.event).field_names
    return one.field == EVENT_FIELD and not own


def _lay(
    numbered: Sequence[_Numbered],
    is_kept: bool,
    labels: CorrectedLabels,
    left_out: dict[Correction, Mapping[str, str]],
) -> list[Problem]:
    """Change the labels as the corrections say; those that do not fit."""
    # Two people may say the same of one field: both speak of what was there before.
    events, untouched = labels.now()
    problems = []
    for file, number, one in numbered:
        place = labels.at.get((one.event, one.video))
        if is_kept and place is None and one.event in labels.schema.event_names:
            logger.warning(
                "%s, row %d: %s/%s has no row any more; it stays as it is", file, number, one.event, one.video
            )
            continue
        if is_kept:
            events, untouched = labels.events, labels.values
        if (wrong := _misplaced(one, None if place is None else events[place], is_kept, labels)) is not None:
            problems.append(Problem(file, number, one.video, *wrong))
            continue
        assert place is not None
        if _is_of_event(one, labels.schema):
            if one.new != labels.events[place]:
                left_out[one] = labels.left_out(place, one.new)
                if (wrong := labels.move(place, one.new)) is not None:
                    problems.append(Problem(file, number, one.video, *wrong))
            continue
        found = _value(one, untouched[place], labels.schema, is_kept)
        if isinstance(found, str):
            labels.values[place][one.field] = found
        else:
            problems.append(Problem(file, number, one.video, *found))
    return problems


def _misplaced(one: Correction, now: str | None, is_kept: bool, labels: CorrectedLabels) -> tuple[str, str] | None:
    """What is wrong with the event, the clip or the field that a correction names, and the remedy.

    Args:
        now: event of the clip before these corrections; None: there is no such clip.
    """
    names = labels.schema.event_names
    if one.event not in names:
        return f"{one.event!r} is no event", f"write the event as it is{nearest(one.event, names)}"
    if now is None:
        videos = [video for event, video in labels.at if event == one.event]
        few = videos if len(videos) <= 5 else [*videos[:5], f"... ({len(videos):,} clips)"]
        return f"{one.event} has no clip of that name", f"write its name as in the dataset{nearest(one.video, few)}"
    if now != one.event and not is_kept:
        what = f"the clip is of {now} in the dataset already, not of {one.event}"
        return what, "make the corrections from the dataset as it is now, or leave the row out"
    if _is_of_event(one, labels.schema):
        if one.new not in names:
            return f"{one.new!r} is no event", f"allowed: {', '.join(names)}"
        if one.old != one.event:
            return f"its event is {one.event!r}, and `old` is {one.old!r}", f"write {one.event} as `old`"
        return None
    known = labels.schema.event(one.event).field_names
    if one.field not in known:
        return f"{one.field!r} is no field of {one.event}", f"write its name{nearest(one.field, known)}"
    return None


def _says_nothing_new(one: Correction, labels: CorrectedLabels) -> bool:
    """Of a row that was given before: it holds, or its clip is there no more; false where it was taken back since."""
    place = labels.at.get((one.event, one.video))
    if place is None:
        return True  # named already, of the earlier row
    if _is_of_event(one, labels.schema):
        return labels.events[place] == one.new
    if one.field not in labels.values.get(place, {}):
        return True
    return _same(labels.schema.event(one.event).field(one.field), one.new, labels.values[place][one.field])


def _read(path: Path, problems: list[Problem]) -> list[_Numbered]:
    table, bad = read_table(path, "correction")
    columns = {name: table.column([name]) for name in COLUMNS}
    if missing := [name for name in COLUMNS if columns[name] is None]:
        what = f"missing columns: {', '.join(missing)}"
        remedy = f"its header must be {','.join(COLUMNS)}, as the report's page writes it"
        raise InputProblems("the corrections cannot be used", [Problem(str(path), None, "", what, remedy)])
    problems += bad
    found = []
    for number, cells in table.rows.items():
        values = {name: as_meant(cells[place].strip()) for name, place in columns.items() if place is not None}
        found.append((str(path), number, Correction(**values)))
    return found


def _contradictions(numbered: Sequence[_Numbered]) -> list[Problem]:
    by_place: dict[tuple[str, str, str], list[_Numbered]] = defaultdict(list)
    for file, number, one in numbered:
        by_place[one.place].append((file, number, one))
    problems = []
    for same in by_place.values():
        if len({normal_form(one.new) for *_, one in same}) > 1:
            said = " and ".join(f"{one.new!r} (row {number})" for _, number, one in same)
            file, number, one = same[-1]
            what = f"{one.field} is to become {said}"
            problems.append(Problem(file, number, one.video, what, "keep one of them"))
    return problems


def _value(one: Correction, values: Mapping[str, str], schema: Schema, is_kept: bool) -> str | tuple[str, str]:
    """The new value, or what is wrong with the correction, and the remedy."""
    field, now = schema.event(one.event).field(one.field), values.get(one.field, UNKNOWN)
    new = None if not one.new else cell_value(field, one.new)
    if new is None:
        allowed = (
            f"a whole number up to {MAX_COUNT}" if field.kind == "count" else ", ".join(field.vocabulary) or "a text"
        )
        said = f"{one.new!r} is no value of {one.field}" if one.new else f"the new value of {one.field} is empty"
        return said, f"allowed: {allowed}, or {UNKNOWN}"
    if not _same(field, one.old, now) and not _same(field, now, new):
        said = f"{one.field} is {now!r} in the dataset, not {one.old!r}"
        return said, "make the corrections from the dataset as it is now, or leave the row out"
    if not is_kept and not _same(field, one.old, now):
        return f"{one.field} is {now!r} in the dataset already, not {one.old!r}", "leave the row out"
    return now if _same(field, now, new) else new


def _same(field: Field, said: str, value: str) -> bool:
    """Whether what a row says is the value: as the reader of the CSVs takes it, whatever its case and blanks."""
    meant = cell_value(field, said) if said else UNKNOWN
    return meant == value or (field.kind == "categorical" and normal_form(said) == normal_form(value))
