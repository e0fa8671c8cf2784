"""The YAML of a schema as nested dicts, and a field in that form.

Enters: a YAML file, or a Field. Leaves: dicts of text and lists; the arguments of a Field.
Must hold: nothing is judged here (checks.py does); every scalar stays text, so that a bare Yes or No is a word.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

#: What a schema's file may hold beside `extends`.
SECTIONS = ("events", "fields", "mirror", "consistency")


def read_text(path: Path, what: str) -> str:
    """The text of a YAML.

    Args:
        path: the file.
        what: what it should be, for the message.

    Raises:
        ValueError: it is not UTF-8.
    """
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"{what} {path}, line {line}: not UTF-8 text; give a YAML, saved as UTF-8") from error


def where_it_breaks(error: yaml.YAMLError, text: str) -> str:
    """Line, column and reason of a YAML's fault, on one line.

    >>> try:
    ...     yaml.safe_load("a: [1")
    ... except yaml.YAMLError as error:
    ...     where_it_breaks(error, "a: [1")
    "line 1, column 6: not YAML (expected ',' or ']', but got '<stream end>')"
    """
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        line, column, reason = mark.line + 1, mark.column + 1, error.problem
    else:  # of a character that no YAML may have
        before = text[: getattr(error, "position", 0)]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        reason = getattr(error, "reason", "") or str(error)
    return f"line {line}, column {column}: not YAML ({' '.join(str(reason).split())})"


def parse_yaml(text: str) -> Any:
    """Raises yaml.YAMLError (a key given twice is one)."""
    return yaml.load(text, Loader=_TextLoader)


class _TextLoader(getattr(yaml, "CBaseLoader", yaml.BaseLoader)):  # type: ignore[misc]
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{key.value!r} is given twice; leave one", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def is_closed(entry: Mapping[str, Any]) -> bool:
    """Whether the vocabulary is final: as the YAML says, else where there is one."""
    return str(entry.get("closed", bool(entry.get("vocabulary")))).casefold() == "true"


def is_background(entry: Mapping[str, Any]) -> bool:
    """Whether an event is marked as what there is when nothing happens."""
    return str(entry.get("background", "false")).casefold() == "true"


def extended(own: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Events, fields and rules of `base`, then those of `own`; one of the same name takes the place of the other."""
    both = {key: {**(base.get(key) or {}), **(own.get(key) or {})} for key in SECTIONS}
    return {key: value for key, value in both.items() if value or key in ("events", "fields")}


def field_arguments(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a Field, defaults filled in."""
    return {
        "name": name,
        "columns": tuple(entry.get("columns") or (name,)),
        "label": entry["label"],
        "aliases": tuple(entry.get("aliases") or ()),
        "section": entry["section"],
        "kind": entry["kind"],
        "vocabulary": tuple(entry.get("vocabulary") or ()),
        "closed": is_closed(entry),
        "wordings": _by_wording(entry.get("wordings")),
        "whole": _by_wording(entry.get("whole")),
        "partial": {w: tuple(g.get("terms") or ()) for g in entry.get("partial") or () for w in g["wordings"]},
        "doubts": tuple(entry.get("doubts") or ()),
        "old_metric": entry.get("old_metric") or ("cosine_similarity" if entry["kind"] == "text" else "exact_match"),
        "description": entry.get("description") or "",
    }


def field_entry(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A Field's attributes in the YAML's form; the inverse of `field_arguments` without the name."""
    entry = {key: list(value) if isinstance(value, tuple) else value for key, value in arguments.items()}
    del entry["name"]
    entry["wordings"] = _by_term(arguments["wordings"])
    entry["whole"] = _by_term(arguments["whole"])
    partial = _by_term(arguments["partial"])
    entry["partial"] = [{"terms": list(terms), "wordings": wordings} for terms, wordings in partial.items()]
    return entry


def _by_wording(groups: Mapping[str, Iterable[str]] | None) -> dict[str, str]:
    return {wording: term for term, wordings in (groups or {}).items() for wording in wordings}


def _by_term(table: Mapping[str, Any]) -> dict[Any, list[str]]:
    groups: dict[Any, list[str]] = {}
    for wording, term in table.items():
        groups.setdefault(term, []).append(wording)
    return groups
