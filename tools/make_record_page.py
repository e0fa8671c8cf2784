"""Write docs/record.md, the tables of all events and fields, from the shipped schema.

Enters: vlm_crash/schema/crash.yaml. Leaves: docs/record.md; with --check nothing is written, and the exit code is 1
where the page says something else than the schema.

    .venv/bin/python tools/make_record_page.py [--check]
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from vlm_crash.schema.fields import Event, Field, Schema, load_schema

PAGE = Path(__file__).parents[1] / "docs" / "record.md"
HEAD = """\
# The record

What is asked of each clip, made from [crash.yaml](../vlm_crash/schema/crash.yaml) by `tools/make_record_page.py`. An
answer is text: the opening sentence says the event, then one line `- Label: value` for each field, under bold headings.
"""
FOOT = """
An open field takes the terms that the dataset's own CSV has. `Unknown` stands for a value that nobody gave: such a
field of such a clip is not learnt and not scored. Spellings with spaces, hyphens or other case are the same term, and
the YAML lists the wordings that stand for each.
"""
COLUMNS = ("CSV column", "label", "also read as", "values", "what it says")


def page(schema: Schema) -> str:
    """The whole page."""
    return "\n".join([HEAD, *(line for event in schema.events for line in table(event)), FOOT.lstrip("\n")])


def table(event: Event) -> Iterator[str]:
    """An event's heading and table."""
    yield f"## {event.title}: {len(event.fields)} fields"
    yield f"Opening: *{event.opening}*\n"
    yield f"| {' | '.join(COLUMNS)} |"
    yield "|---" * len(COLUMNS) + "|"
    for field in event.fields:
        cells = (code(field.columns[0]), code(field.label), ", ".join(map(code, field.aliases)), values(field))
        yield f"| {' | '.join([*cells, field.description])} |"
    yield ""


def values(field: Field) -> str:
    """What may stand in a field, in words."""
    if field.vocabulary:
        return ", ".join(map(code, field.vocabulary))
    return {"count": "a whole number", "text": "a sentence", "categorical": "open: the dataset's terms"}[field.kind]


def code(text: str) -> str:
    return f"`{text}`"


if __name__ == "__main__":
    text = page(load_schema())
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
        print(f"{PAGE} is not what the schema says; run {sys.argv[0]}", file=sys.stderr)
        sys.exit(1)
