"""What an audit finds: one sentence for people, a count, and the details for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

#: A leak makes scores of this dataset wrong; a warning makes them easy to misread; a note is good to know.
Severity = Literal["leak", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("leak", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        kind: of what it is, the same for all of its kind: "copies", "groups", "shortcut", "labels", "spelling", "rows",
            "balance", "not looked at".
        sentence: what was found, where, and what to do about it.
        count: clips, pairs, rows or terms that it is about; the sentence says which.
        details: the same as plain values, for audit.json.
    """

    kind: str
    severity: Severity
    sentence: str
    count: int
    details: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def to_json(self) -> dict[str, Any]:
        """As a plain dict."""
        said = {"kind": self.kind, "severity": self.severity, "sentence": self.sentence, "count": self.count}
        return {**said, "details": dict(self.details)}


def some(names: list[str], most: int = 5) -> str:
    """The first few names, and how many more there are.

    >>> some(["a", "b"]), some(["a", "b", "c"], most=1)
    ('a, b', 'a and 2 more')
    """
    rest = len(names) - most
    return ", ".join(names) if rest <= 0 else f"{', '.join(names[:most])} and {rest} more"
