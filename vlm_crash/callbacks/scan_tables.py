"""The tables of a scan: a row an event, a row a recording. Pure.

Enters: the events with their answers, the lines of each recording's curve. Leaves: rows, and a CSV's text; the answer
that stands for a recording that failed. Must hold: such a one keeps its row, with what was seen of it.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from vlm_crash.callbacks.scan_events import ScanEvent
from vlm_crash.callbacks.scan_lines import Line, is_failed
from vlm_crash.schema.records import Prediction, VideoSample
from vlm_crash.video.clip_files import readable_name


def event_rows(events: Iterable[ScanEvent], answers: dict[tuple[Any, ...], dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of events.csv."""
    return [
        {
            "recording": event.recording.video,
            "event": event.event,
            "start_s": f"{event.peak.start_s:.3f}",
            "end_s": f"{event.peak.end_s:.3f}",
            "peak_s": f"{event.peak.peak_s:.3f}",
            "probability": f"{event.peak.probability:.4f}",
            "window_probability": f"{event.window['probability']:.4f}",
            "answered": answers[event.key]["event"] or "",
            "status": answers[event.key]["status"],
            "clip": event.clip,
            "clip_start_s": f"{event.clip_start_s:.3f}",
            "clip_end_s": f"{event.clip_end_s:.3f}",
            "record": json.dumps(answers[event.key]["fields"], ensure_ascii=False),
        }
        for event in events
    ]


def recording_rows(
    recordings: Iterable[VideoSample], curves: Mapping[str, Sequence[Line]], events: Iterable[ScanEvent]
) -> list[dict[str, Any]]:
    """The rows of recordings.csv: what was seen of each, and what was wrong with it.

    The status: ok; failed: it cannot be read, or not to its end; incomplete: it was read, and some of its windows could
    not be judged.
    """
    rows, num_events = [], Counter(event.recording.id for event in events)
    for recording in recordings:
        lines = curves.get(recording.id, ())
        failed = next((line["error"] for line in lines if is_failed(line)), None)
        windows = [line for line in lines if not is_failed(line)]
        num_unjudged = sum(line["probability"] is None for line in windows)
        rows.append(
            {
                "recording": recording.video,
                "path": readable_name(recording.path),
                "status": "failed" if failed else "incomplete" if num_unjudged else "ok",
                "seconds": f"{max((line['end_s'] for line in windows), default=0.0):.3f}",
                "windows": len(windows),
                "windows_without_probability": num_unjudged,
                "events": num_events[recording.id],
                "problem": failed or "; ".join(_problems(windows)),
            }
        )
    return rows


def failures(
    recordings: Iterable[VideoSample], curves: Mapping[str, Sequence[Line]], run_id: str
) -> Iterator[Prediction]:
    """What predictions.jsonl says of the recordings that failed."""
    for recording in recordings:
        for line in filter(is_failed, curves.get(recording.id, ())[-1:]):
            yield Prediction(
                recording.video, None, None, {}, {}, "", "failed", line["error"], provenance=run_id,
                path=readable_name(recording.path),
            )  # fmt: skip


def _problems(windows: Sequence[Line]) -> list[str]:
    """What was wrong with a recording, then what the model could not judge of it, with the first reason."""
    found = [line["damage"] for line in windows if line["damage"]][:1]
    unjudged = [line for line in windows if line["probability"] is None]
    if unjudged:
        found.append(f"{len(unjudged)} of {len(windows)} windows without a probability: {unjudged[0]['error']}")
    return found


_EVENT_COLUMNS = (
    "recording", "event", "start_s", "end_s", "peak_s", "probability", "window_probability", "answered", "status",
    "clip", "clip_start_s", "clip_end_s", "record",
)  # fmt: skip


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A CSV; without rows, the header of events.csv."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else list(_EVENT_COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
