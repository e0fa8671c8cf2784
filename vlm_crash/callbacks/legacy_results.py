"""The old scripts' files: <event>_results.json, [{"video", "response"}].

Enters: the lines of predictions.jsonl. Leaves: the files, written bit by bit, so that a million answers never lie in
memory, and each whole or not at all.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from vlm_crash.data.files import whole_file

_RESULTS = "{}_results.json"
_UNKNOWN = "unknown"


def results_files(folder: Path, events: Sequence[str]) -> list[Path]:
    """The files that predictions with these events may have; anybody else's *_results.json is not ours to touch."""
    return [folder / _RESULTS.format(event) for event in (*events, _UNKNOWN)]


def write_legacy_results(lines: Iterable[bytes], folder: Path, events: Sequence[str]) -> Counter[str]:
    """One file per event that has a clip; files of other events of the schema, of an earlier run, are removed.

    A clip goes into the file of its folder or CSV; where neither is known, of the predicted event; where that is
    not known either, into unknown_results.json. A failed clip has its error as its response.

    Args:
        events: names of the schema's events.

    Returns:
        how many lines have each status.

    Raises:
        OSError: no space; a file is as it was or whole.
    """
    statuses: Counter[str] = Counter()
    files: dict[str, IO[bytes]] = {}
    with ExitStack() as stack:
        for line in lines:
            row = json.loads(line)
            statuses[row["status"]] += 1
            name = _RESULTS.format(row.get("source_event") or row["event"] or _UNKNOWN)
            is_first = name not in files
            if is_first:
                files[name] = stack.enter_context(whole_file(folder / name))
            files[name].write((b"[\n " if is_first else b",\n ") + _entry(row))
        for file in files.values():
            file.write(b"\n]\n")
    for old in results_files(folder, events):
        if old.name not in files:
            old.unlink(missing_ok=True)
    return statuses


def _entry(row: Any) -> bytes:
    response = row["response"] if row["status"] == "ok" else f"Failed: {row['error']}"
    entry = json.dumps({"video": row["video"], "response": response}, ensure_ascii=False, indent=1)
    return entry.replace("\n", "\n ").encode(errors="backslashreplace")
