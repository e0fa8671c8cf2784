"""An audit of a prepared dataset, before anybody trains on it: leaks, shortcuts, labels, rows.

Enters: what `prepare` wrote. Leaves: an AuditReport, which is audit.json. Must hold: nothing of the dataset is changed;
every clip is in a count, and what could not be looked at is named. A leak is what makes its scores wrong; all else is
said, and left to a person.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm_crash.data.audit_copies import Looked, Pair, copy_findings, look, pairs_of, unseen_findings
from vlm_crash.data.audit_findings import SEVERITIES, Finding
from vlm_crash.data.audit_labels import balance_findings, label_counts, label_findings, spelling_findings
from vlm_crash.data.audit_rows import Rows, check_given, group_findings, read_sources, row_findings
from vlm_crash.data.audit_shortcuts import Shortcut, shortcut_findings, shortcuts
from vlm_crash.data.clip_metadata import clip_metadata
from vlm_crash.data.near_copies import LEAST_SHARE, MAX_BITS
from vlm_crash.data.prepared import PROBLEMS_FILE, SOURCE_COLUMN, kept_groups, load_prepared, sources_of
from vlm_crash.data.problems import Problem
from vlm_crash.data.quarantine import Checks
from vlm_crash.data.splits import unite
from vlm_crash.schema.fields import Schema
from vlm_crash.schema.records import VideoSample
from vlm_crash.video.counting import counted
from vlm_crash.video.fingerprint import NUM_BITS


@dataclass(frozen=True)
class AuditReport:
    """What an audit found.

    Attributes:
        splits: the samples by split.
        findings: leaks first, then warnings, then notes.
        counts: clips by event, field, split and term (audit_labels.label_counts).
    """

    dataset: Path
    splits: Mapping[str, Sequence[VideoSample]]
    findings: tuple[Finding, ...]
    pairs: tuple[Pair, ...]
    shortcuts: tuple[Shortcut, ...]
    counts: Mapping[str, Any]
    settings: Mapping[str, Any]

    @property
    def split_of(self) -> dict[str, str]:
        """Sample id -> split."""
        return {sample.id: split for split, samples in self.splits.items() for sample in samples}

    @property
    def is_leak(self) -> bool:
        return any(finding.severity == "leak" for finding in self.findings)

    @property
    def leaks(self) -> list[Pair]:
        """The pairs that stand in different splits."""
        split_of = self.split_of
        return [pair for pair in self.pairs if pair.across(split_of)]

    def to_json(self) -> dict[str, Any]:
        """What audit.json holds."""
        split_of = self.split_of
        return {
            "dataset": str(self.dataset),
            "num_clips": {split: len(samples) for split, samples in self.splits.items()},
            "is_leak": self.is_leak,
            "findings": [finding.to_json() for finding in self.findings],
            "pairs": [pair.to_json(split_of) for pair in self.pairs],
            "shortcuts": [one.to_json() for one in self.shortcuts],
            "counts": self.counts,
            "settings": dict(self.settings),
        }

    def __str__(self) -> str:
        clips = ", ".join(f"{len(samples):,} {split}" for split, samples in self.splits.items())
        found = {severity: [f for f in self.findings if f.severity == severity] for severity in SEVERITIES}
        words = ", ".join(counted(len(of), name) for name, of in found.items())
        lines = [f"{self.dataset}: {clips} clips: {words}"]
        for severity, of in found.items():
            lines += [f"  {severity}: {finding.sentence}" for finding in of]
        return "\n".join(lines)


def audit(
    dataset: Path,
    schema: Schema,
    out: Path,
    csvs: Mapping[str, Path] | None = None,
    group_column: str | None = None,
    *,
    seed: int = 0,
    num_workers: int = 1,
    clip_timeout_s: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> AuditReport:
    """Look at a dataset for what would make its scores wrong or easy to misread.

    Args:
        dataset: what `prepare` wrote, or a folder of the old scripts.
        schema: events and fields.
        out: folder where fingerprints are kept.
        csvs: annotations by event, where the dataset does not say where they lie.
        group_column: CSV column whose equal cells must stand in one split; None: as the splits were made.
        seed: of the classifier's folds.
        num_workers: clips that are read at the same time.
        clip_timeout_s: most seconds for one; None or 0: no limit.
        progress: told after each clip: clips done, clips in all.

    Raises:
        InputProblems, ValueError, FileNotFoundError: the dataset cannot be read, or the options cannot be.
        OSError: the folder cannot be written.
    """
    _check(num_workers, clip_timeout_s, seed)
    folder = dataset.parent if dataset.suffix == ".json" else dataset
    checks = Checks.of(dataset)
    splits = checks.marked(load_prepared(dataset, schema))
    samples = [sample for found in splits.values() for sample in found]
    check_given(csvs or {}, samples)
    split_of = {sample.id: split for split, found in splits.items() for sample in found}
    kept_column, kept = kept_groups(dataset)
    column = group_column or kept_column
    asked = None if column == SOURCE_COLUMN else column
    rows = read_sources({**sources_of(dataset), **(csvs or {})}, samples, schema, asked)
    labels = {**(kept if column == kept_column else {}), **rows.groups}
    looked = look(samples, num_workers, clip_timeout_s, out, progress)
    pairs = pairs_of(samples, looked)
    groups = unite([labels, *({pair.first.id: "", pair.second.id: ""} for pair in pairs)])
    told = shortcuts(samples, clip_metadata(samples, checks.rows, clip_timeout_s), groups, schema, seed)
    counts = label_counts(splits, schema)
    findings = [
        *copy_findings(pairs, split_of),
        *group_findings(labels, split_of, column),
        *shortcut_findings(told),
        *_label_findings(counts, rows, samples, looked, schema),
        *row_findings(rows, samples, _recorded(folder)),
    ]
    settings = {
        "max_bits": MAX_BITS, "of_bits": NUM_BITS, "least_share": LEAST_SHARE, "seed": seed, "group_column": column,
        "schema": schema.fingerprint,
    }  # fmt: skip
    ordered = sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
    return AuditReport(dataset, splits, tuple(ordered), tuple(pairs), tuple(told), counts, settings)


def _check(num_workers: int, clip_timeout_s: float | None, seed: int) -> None:
    numbers = {"num_workers": (num_workers, 1), "clip_timeout_s": (clip_timeout_s, 0), "seed": (seed, 0)}
    for name, (value, least) in numbers.items():
        if value is not None and not value >= least:  # nan is not
            raise ValueError(f"{name}={value} is below {least}; set --{name} to {least} or more")


def _label_findings(
    counts: Mapping[str, Any], rows: Rows, samples: Sequence[VideoSample], looked: Sequence[Looked], schema: Schema
) -> list[Finding]:
    """What the labels say by themselves, and which clips nobody has seen."""
    by_event = {event: sum(sample.event == event for sample in samples) for event in schema.event_names}
    open_fields = {
        (event, name): {term: sum(split.get(term, 0) for split in by_split.values())
                        for term in {term for split in by_split.values() for term in split}}
        for event, fields in counts.items() if event for name, by_split in fields.items()
        if schema.field(name).kind == "categorical" and (event, name) not in rows.cells
    }  # fmt: skip
    return [
        *label_findings(counts, schema, by_event),
        *balance_findings(counts),
        *spelling_findings(rows.cells, schema, "the CSV"),
        *spelling_findings(open_fields, schema, "the dataset"),
        *unseen_findings(samples, looked),
    ]


def _recorded(folder: Path) -> list[Problem]:
    """What `prepare` wrote into problems.csv."""
    path = folder / PROBLEMS_FILE
    if not path.is_file():
        return []
    rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
    return [
        Problem(row["file"], int(row["row"]) if row["row"] else None, row["video"], row["problem"], row["remedy"])
        for row in rows
    ]
