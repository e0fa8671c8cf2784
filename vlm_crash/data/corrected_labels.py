"""What the rows of a dataset say while corrections are laid over them: of each its event, and the values of its fields.

Enters: rows of the annotations. Leaves: the same rows with other values, or of another event. Must hold: a clip keeps
its id, and with it its split, whatever its event becomes; a value of a field that the new event lacks is kept here, so
that it comes back with the old event; a field that only the new event has is UNKNOWN until somebody says more.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vlm_crash.data.annotations import AnnotatedRow
from vlm_crash.schema.fields import UNKNOWN, Schema
from vlm_crash.schema.records import Annotation, cell_value

#: Stands in the column `field` of a correction that is about the event itself; a schema's own field goes before it.
EVENT_FIELD = "event"


class CorrectedLabels:
    """The labels as they are now; places are those of the rows.

    Attributes:
        events: place -> event.
        values: place -> field -> value, also of fields that the event of now does not have.
        at: (event, name of the clip) -> place; names that a clip had before stay.
    """

    def __init__(self, rows: Sequence[AnnotatedRow], schema: Schema, folders: Mapping[str, Path]) -> None:
        """Of these rows; folders: event -> where its clips lie, from which a clip is named."""
        self.rows, self.schema, self.folders = rows, schema, folders
        self.events = {n: str(row.sample.event) for n, row in enumerate(rows)}
        self.values = {n: dict(row.sample.annotation.values) for n, row in enumerate(rows) if row.sample.annotation}
        self.at = {(str(row.sample.event), row.sample.video): n for n, row in enumerate(rows)}

    def now(self) -> tuple[dict[int, str], dict[int, dict[str, str]]]:
        """Copies of `events` and `values`, with UNKNOWN for what the event has and nobody has said."""
        return dict(self.events), {place: dict(self.of(place)) for place in self.values}

    def of(self, place: int) -> Mapping[str, str]:
        """The fields of the event of now."""
        event, said = self.schema.event(self.events[place]), self.values[place]
        return {f.name: cell_value(f, said.get(f.name, UNKNOWN)) or UNKNOWN for f in event.fields}

    def left_out(self, place: int, event: str) -> dict[str, str]:
        """Known values that a record of that event has no field for."""
        names = self.schema.event(event).field_names
        return {name: v for name, v in self.of(place).items() if name not in names and v != UNKNOWN}

    def video(self, place: int) -> str:
        """The clip's name among those of its event: as given, or from the folder of the other event."""
        sample, event = self.rows[place].sample, self.events[place]
        if event == sample.event:
            return sample.video
        # Both without links: the dataset names the folder of the event so, and ".." of a link leads elsewhere.
        path = sample.path.parent.resolve() / sample.path.name
        return Path(os.path.relpath(path, self.folders[event].resolve())).as_posix()

    def move(self, place: int, event: str) -> tuple[str, str] | None:
        """Make a clip one of another event; what is wrong and the remedy where that cannot be."""
        if event not in self.folders:
            return f"the dataset has no {event}", f"give the CSV and the folder of {event}, too"
        before, self.events[place] = self.events[place], event
        key = (event, self.video(place))
        if self.at.setdefault(key, place) != place:
            self.events[place] = before
            return f"{event} has a clip {key[1]} already", "remove one of them from its CSV"
        return None

    def row(self, place: int) -> AnnotatedRow:
        """The row as it is now."""
        row = self.rows[place]
        if place not in self.values:
            return row
        event = self.events[place]
        annotation = Annotation.of(self.schema, event, self.of(place))
        return replace(row, sample=replace(row.sample, event=event, video=self.video(place), annotation=annotation))
