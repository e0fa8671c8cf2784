"""Datasets of others -> rows that `prepare` takes.

Enters: rows of another form (other_forms.py), and what a user says of their labels. Leaves: AnnotatedRows, and a
Problem for whatever was not taken over.
Must hold: what the file does not say is UNKNOWN; a cell that says less than one of our terms is UNKNOWN and counted; a
label that is none of our events is left out and counted, or what the user says it is.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlm_crash.data.annotations import AnnotatedRow, sample_id, without_doubles
from vlm_crash.data.clip_names import composed, is_file, name_key
from vlm_crash.data.other_forms import FORMS, OtherRow, clips_by_stem
from vlm_crash.data.problems import InputProblems, Problem
from vlm_crash.schema.fields import UNKNOWN, Event, Schema
from vlm_crash.schema.records import Annotation, VideoSample, cell_value
from vlm_crash.schema.wording import words
from vlm_crash.video.clip_files import VIDEO_SUFFIXES
from vlm_crash.video.counting import counted

#: What --event_of says of a label whose clips are to be left out.
LEFT_OUT = "none"


@dataclass(frozen=True)
class Adapted:
    """What `prepare` makes a dataset of.

    Args:
        sources: event -> (annotation file, clip folder), as of our own CSVs.
        rows: with their official splits.
        problems: what was left out, or says less than our terms.
        num_left_out: rows whose label is no event.
        left_out: names of the clips of these rows.
    """

    sources: Mapping[str, tuple[Path, Path]]
    rows: list[AnnotatedRow]
    problems: list[Problem]
    num_left_out: int
    left_out: frozenset[str]


def adapt(
    form: str, annotations: Path | None, clips: Path, schema: Schema, event_of: Mapping[str, str] | None = None
) -> Adapted:
    """Read a dataset of another form.

    Args:
        form: a key of FORMS.
        annotations: its file; None for folders.
        clips: folder of its clips.
        schema: events and fields.
        event_of: by label the event that it is, or "none"; others are told by their wording.

    Raises:
        InputProblems, ValueError: the file cannot be used, `event_of` names what there is not, or no clip is left.
    """
    _check(form, annotations, clips, schema, event_of or {})
    file = clips if annotations is None else annotations
    clips_by_stem.cache_clear()  # of another call, after which files may have come
    others, problems = FORMS[form](annotations, clips)
    if problems and not others:
        raise InputProblems("no row of the annotations can be used", problems)
    events = _events(others, problems, schema, event_of or {})
    taken = [other for other in others if events[other.label] is not None]
    if not taken:
        raise _stop(_no_event(file, others), problems)
    problems += _left_out(file, others, events)
    rows, cells = [], Counter[tuple[str, str]]()
    for other in taken:
        event = schema.event(str(events[other.label]))
        path = _find(clips, other.clip)
        video = None if path is None else _inside(clips, path)
        if path is None or video is None:
            what = f"no such clip in {clips}" if path is None else f"the path lies outside {clips} (--clips)"
            problems.append(Problem(str(file), other.row, other.clip, what, "copy it there; the row is left out"))
            continue
        annotation = Annotation.of(schema, event.name, _values(event, other, cells))
        sample = VideoSample(sample_id(event.name, video), video, path, event.name, annotation, None)
        rows.append(AnnotatedRow(sample, str(file), other.row, other.group, other.split))
    if not rows:
        raise InputProblems("no clip of the annotations is there", problems)
    for (name, cell), count in sorted(cells.items()):
        what = f"{counted(count, 'clip')}: {name} is {cell!r}, which is no one term of it"
        problems.append(Problem(str(file), None, "", what, f"the field counts as {UNKNOWN}"))
    rows, doubled = without_doubles(rows)
    problems += doubled
    found = dict.fromkeys(row.sample.event for row in rows)
    sources = {str(event): (file, clips) for event in found}
    not_taken = (_find(clips, other.clip) for other in others if events[other.label] is None)
    left_out = frozenset(path.name for path in not_taken if path is not None)
    return Adapted(sources, rows, problems, len(others) - len(taken), left_out)


def _check(form: str, annotations: Path | None, clips: Path, schema: Schema, event_of: Mapping[str, str]) -> None:
    if form not in FORMS:
        raise ValueError(f"form={form!r} is not one of {list(FORMS)}; set --form to one of them")
    if (annotations is None) != (form == "folders"):
        lacks = "needs --annotations" if annotations is None else "has no annotation file; leave out --annotations"
        raise ValueError(f"--form {form} {lacks}")
    if wrong := sorted(set(event_of.values()) - {*schema.event_names, LEFT_OUT}):
        raise ValueError(
            f"--event_of names {', '.join(wrong)}; allowed: {', '.join(schema.event_names)}, or {LEFT_OUT} (left out)"
        )
    if not clips.is_dir():
        what = "it is a file" if clips.is_file() else "there is no such folder"
        remedy = f"give the folder that holds {'a folder per event' if form == 'folders' else 'the clips'} as --clips"
        raise InputProblems("the clips cannot be used", [Problem(str(clips), None, "", what, remedy)])


def _stop(why: str, problems: Sequence[Problem]) -> ValueError:
    """An error that hides no problem: a row that is left out may be the reason."""
    return InputProblems(f"{why}. Rows that are left out", problems) if problems else ValueError(why)


def _events(
    others: Sequence[OtherRow], problems: Sequence[Problem], schema: Schema, event_of: Mapping[str, str]
) -> dict[str, str | None]:
    """By label its event: as the user says, else by the wordings of the schema's events; None: it is none."""
    labels = {other.label: other.meaning or other.label for other in others}
    if unknown := sorted(set(event_of) - set(labels)):
        said = f"--event_of names {', '.join(unknown)}; the labels are {', '.join(sorted(labels)) or 'none'}"
        raise _stop(said, problems)
    wordings = {" ".join(words(text)): e.name for e in schema.events for text in (e.name, e.title, *e.openings)}
    told = {label: wordings.get(" ".join(words(meaning))) for label, meaning in labels.items()}
    told |= {label: None if event == LEFT_OUT else event for label, event in event_of.items()}
    return told


def _left_out(file: Path, others: Sequence[OtherRow], events: Mapping[str, str | None]) -> list[Problem]:
    counts = Counter(other.label for other in others if events[other.label] is None)
    problems = []
    for label, count in sorted(counts.items()):
        what = f"{counted(count, 'clip')} {'is' if count == 1 else 'are'} labelled {label!r}, no event of ours"
        remedy = f"left out; {_option(label, 'EVENT')} takes in what shows one"
        problems.append(Problem(str(file), None, "", what, remedy if label else "left out; give them a label"))
    return problems


def _no_event(file: Path, others: Sequence[OtherRow]) -> str:
    counts = Counter(other.label for other in others)
    if not counts:
        return f"{file}: there are no clips in it; check the path and --form"
    named = ", ".join(f"{label!r} ({count})" for label, count in counts.most_common(20))
    example = next(filter(None, counts), None)
    remedy = "say which event a label is, as in " + _option(example, "crash") if example else "give the clips a label"
    return f"{file}: none of its labels is an event of the schema: {named}; {remedy}"


def _option(label: str, event: str) -> str:
    """What to type, so that a shell and the command line take the label as it is."""
    if re.fullmatch(r"[\w-]+", label):
        return f"--event_of.{label} {event}"
    return f"--event_of {shlex.quote(json.dumps({label: event}, ensure_ascii=False))}"


def _find(clips: Path, name: str) -> Path | None:
    """The clip of that name; else the only one that has this name and an ending besides; else, where the name has a
    video's ending, the only one whose name differs in the case of that ending or in how its accents are written.

    A path with backslashes, as Windows writes it, is looked for with slashes, too.
    """
    path = clips / name
    if path.suffix.lower() in VIDEO_SUFFIXES and is_file(path):
        return path
    by_stem = clips_by_stem(path.parent)
    found = [entry for entry in by_stem.get(composed(path.name), ()) if is_file(entry)]
    if not found and path.suffix.lower() in VIDEO_SUFFIXES:  # the accents written in another way, or the suffix
        same = (entry for entry in by_stem.get(composed(path.stem), ()) if name_key(entry.name) == name_key(path.name))
        found = [entry for entry in same if is_file(entry)]
    if not found and "\\" in name:
        return _find(clips, name.replace("\\", "/"))
    return found[0] if len(found) == 1 else None


def _inside(clips: Path, path: Path) -> str | None:
    """The path of a clip in the folder, with slashes; None: it lies elsewhere. A link counts where it stands."""
    folder, found = (Path(os.path.abspath(one)) for one in (clips, path))  # noqa: PTH100 - resolve() follows links
    if not found.is_relative_to(folder):  # perhaps the same folder by another name
        folder, found = folder.resolve(), found.parent.resolve() / found.name
    return found.relative_to(folder).as_posix() if found.is_relative_to(folder) else None


def _values(event: Event, other: OtherRow, cells: Counter[tuple[str, str]]) -> dict[str, str]:
    """What the row says of the event's fields, and nothing else; cells that are no term are counted."""
    values = {}
    for name, cell in other.cells.items():
        if name not in event.field_names:
            continue
        value = cell_value(event.field(name), cell)
        if value is None:
            cells[name, cell] += 1
        else:
            values[name] = value
    return values
