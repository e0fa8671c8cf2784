"""Corrections of labels, as the report's page gives them: a CSV that is laid over the annotation CSVs.

Enters: rows of the annotations, and `event,video,field,old,new,note,annotator` by row. Leaves: the same rows with the
new values, and a record of every change. Must hold: the annotation CSVs are not touched; a correction that does not
fit what the dataset says changes nothing, and all of them are named at once; corrections of an earlier run stay.
"""

from __future__ import annotations

import csv
import io
import json
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

from vlm_crash.data.annotations import AnnotatedRow
from vlm_crash.data.csv_table import as_meant, harmless, read_table
from vlm_crash.data.problems import InputProblems, Problem
from vlm_crash.schema.fields import MAX_COUNT, UNKNOWN, Field, Schema
from vlm_crash.schema.records import Annotation, cell_value
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
        num_changed: fields whose value is another one than the annotation CSVs say.
    """

    rows: list[AnnotatedRow]
    corrections: tuple[Correction, ...] = ()
    num_changed: int = 0

    def files(self, out: Path) -> dict[Path, str]:
        """What is written beside the dataset: the corrections, and what they came to; nothing where there are none."""
        if not self.corrections:
            return {}
        at = {(str(row.sample.event), row.sample.video): row for row in self.rows}
        applied = [
            {**dict(zip(COLUMNS, astuple(one), strict=True)), "id": row.sample.id, "csv": row.file, "row": row.row}
            for one in self.corrections
            if (row := at.get((one.event, one.video))) is not None
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


def correct(rows: Sequence[AnnotatedRow], schema: Schema, out: Path, given: Path | None) -> Corrected:
    """Lay the corrections of earlier runs into this folder, and then the given ones, over the annotations.

    Args:
        rows: of all events.
        out: folder of the dataset, which may hold corrections.csv already.
        given: new ones; None: none.

    Raises:
        InputProblems: (a ValueError) with every row that does not fit: an unknown event, clip, field or term, an `old`
            that is not what the dataset says, or two rows that contradict each other.
    """
    problems: list[Problem] = []
    kept = _read(out / CORRECTIONS_FILE, problems) if (out / CORRECTIONS_FILE).is_file() else []
    new = _read(given, problems) if given is not None else []
    if not kept and not new and not problems:
        return Corrected(list(rows))
    at = {(str(row.sample.event), row.sample.video): n for n, row in enumerate(rows)}
    values = {n: dict(row.sample.annotation.values) for n, row in enumerate(rows) if row.sample.annotation}
    problems += _lay(kept, True, values, at, rows, schema)
    known = {one for *_, one in kept}
    new = [
        numbered for numbered in new
        if numbered[2] not in known or not _says_nothing_new(numbered[2], values, at, schema)
    ]  # fmt: skip
    problems += _contradictions(new)
    problems += _lay(new, False, values, at, rows, schema)
    result = [_with(row, values[n], schema, problems) if n in values else row for n, row in enumerate(rows)]
    if problems:
        raise InputProblems("the corrections do not fit the dataset; nothing was written", problems)
    changed = sum(
        before.sample.annotation.values[name] != value
        for before, after in zip(rows, result, strict=True) if before.sample.annotation and after.sample.annotation
        for name, value in after.sample.annotation.values.items()
    )  # fmt: skip
    added = dict.fromkeys(one for *_, one in new)
    return Corrected(result, (*(one for *_, one in kept), *added), changed)


def _lay(
    numbered: Sequence[_Numbered],
    is_kept: bool,
    values: dict[int, dict[str, str]],
    at: Mapping[tuple[str, str], int],
    rows: Sequence[AnnotatedRow],
    schema: Schema,
) -> list[Problem]:
    """Change `values` (place of a row -> its fields) as the corrections say; those that do not fit."""
    # Two people may say the same of one field: both speak of what was there before.
    untouched = {n: dict(said) for n, said in values.items()}
    problems = []
    for file, number, one in numbered:
        place = at.get((one.event, one.video))
        if is_kept and place is None and one.event in schema.event_names:
            logger.warning("%s, row %d: %s/%s has no row any more; it stays as it is", file, number, *one.place[:2])
            continue
        now = None if place is None else (values if is_kept else untouched)[place]
        found = _value(one, now, rows, schema, is_kept)
        if isinstance(found, str):
            assert place is not None
            values[place][one.field] = found
        else:
            problems.append(Problem(file, number, one.video, *found))
    return problems


def _says_nothing_new(
    one: Correction, values: Mapping[int, Mapping[str, str]], at: Mapping[tuple[str, str], int], schema: Schema
) -> bool:
    """Of a row that was given before: it holds, or its clip is there no more; false where it was taken back since."""
    place = at.get((one.event, one.video))
    if place is None or one.field not in values.get(place, {}):
        return True  # named already, of the earlier row
    return _same(schema.event(one.event).field(one.field), one.new, values[place][one.field])


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


def _value(
    one: Correction, values: Mapping[str, str] | None, rows: Sequence[AnnotatedRow], schema: Schema, is_kept: bool
) -> str | tuple[str, str]:
    """The new value, or what is wrong with the correction, and the remedy."""
    if one.event not in schema.event_names:
        return f"{one.event!r} is no event", f"write the event as it is{nearest(one.event, schema.event_names)}"
    if values is None:
        names = [row.sample.video for row in rows if row.sample.event == one.event]
        few = names if len(names) <= 5 else [*names[:5], f"... ({len(names):,} clips)"]
        return f"{one.event} has no clip of that name", f"write its name as in the dataset{nearest(one.video, few)}"
    event = schema.event(one.event)
    if one.field not in event.field_names:
        return f"{one.field!r} is no field of {one.event}", f"write its name{nearest(one.field, event.field_names)}"
    field, now = event.field(one.field), values[one.field]
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


def _with(row: AnnotatedRow, values: Mapping[str, str], schema: Schema, problems: list[Problem]) -> AnnotatedRow:
    annotation = Annotation.of(schema, str(row.sample.event), values)
    if not annotation.known and row.sample.annotation and row.sample.annotation.known:
        what = "its corrections leave no field with a value"
        problems.append(Problem(row.file, row.row, row.sample.video, what, "take one of them out"))
    return replace(row, sample=replace(row.sample, annotation=annotation))
