"""An evaluation folder (metrics.json + records.json), or predictions alone -> one self-contained report.html.

The page needs no network and no file beside it: frames (JPEGs as base64) are inside, as many and as large as leave it
below 60 MB however many clips there are.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm_crash.data.files import write_files
from vlm_crash.evaluation.answers_page import answer_detail, answers_context, answers_data
from vlm_crash.evaluation.compare import compare
from vlm_crash.evaluation.loading import read_predictions
from vlm_crash.evaluation.page_rendering import render, script_json
from vlm_crash.evaluation.report_clips import browser_data, clip_detail
from vlm_crash.evaluation.report_frames import Pictures, pictures
from vlm_crash.evaluation.report_page import page_context
from vlm_crash.schema.fields import Schema

logger = logging.getLogger(__name__)

#: Most bytes of a page that its frames may fill up; a page whose texts alone are longer has no frames.
PAGE_BYTES = 58_000_000
SCRIPTS = ("common.js", "tables.js", "marks.js", "editor.js", "clip.js", "browser.js")


@dataclass(frozen=True)
class _Page:
    """What a page is made of: a template with its values, and the clips' data, details and places."""

    template: str
    context: dict[str, Any]
    data: dict[str, Any]
    details: list[dict[str, Any]]
    places: list[dict[str, Any]]


def report(folder: Path, out: Path | None = None, clips: Path | None = None, other: Path | None = None) -> Path:
    """Write the page of an evaluation; of a folder that holds predictions only, a page of answers without scores.

    Args:
        folder: what `evaluate` wrote, or what `predict` wrote.
        out: the page; `report.html` in the folder when None.
        clips: where the clips lie now, as <event>/<name> or <name>, if not where they were predicted.
        other: a second evaluation of the same clips; the page shows the differences, as `compare` finds them.

    Returns:
        The path of the page.

    Raises:
        FileNotFoundError: the folder holds neither.
        ValueError: its files are not what `evaluate` or `predict` writes, there is no folder `clips`, or `other` is no
            evaluation that can be compared.
        OSError: the page cannot be written; an old one is as it was then.
    """
    folder = Path(folder)
    if clips is not None and not Path(clips).is_dir():
        raise ValueError(
            f"clips={str(clips)!r} is no folder; set --clips to the one that holds the clips, or leave it out"
        )
    lines = sorted(folder.glob("predictions*.jsonl"))
    if lines and not (folder / "metrics.json").is_file():
        if other is not None:
            raise ValueError(f"{folder} holds answers without scores; --compare takes two folders of `evaluate`")
        page = _answers(lines)
    else:
        page = _evaluation(folder, other)
    out = folder / "report.html" if out is None else Path(out)
    data = script_json(page.data)
    room = PAGE_BYTES - len(data) - sum(len(script_json(detail)) for detail in page.details)
    found = list(pictures(page.places, out, clips, max(0, room // max(1, len(page.places)))))
    shown = [script_json(detail | _shown(one)) for detail, one in zip(page.details, found, strict=True)]
    context = page.context | {"frames_note": _frames_note(found)}
    write_files({out: render(page.template, context, SCRIPTS, data, shown)})
    if without := sum(not one.images for one in found):
        logger.warning("%d of %d clips are shown without frames; the page says why", without, len(found))
    logger.info("report of %d clips: %s (%.1f MB)", len(found), out, out.stat().st_size / 1e6)
    return out


def _shown(one: Pictures) -> dict[str, Any]:
    return {"images": one.images, "times": one.times, "no_frames": one.reason, "link": one.link}


def _frames_note(found: Sequence[Pictures]) -> str:
    """How the clips' frames are kept, in words for the page."""
    sizes = Counter((len(one.images), one.size) for one in found if one.images)
    kinds = [
        f"{n} frame{'s' * (n != 1)} of up to {width} × {height} pixels ({clips} clip{'s' * (clips != 1)})"
        for (n, (width, height)), clips in sizes.most_common()
    ]
    said = f"Kept in this page: {'; '.join(kinds)}. The more clips, the smaller, so that it stays below 60 MB."
    return said if kinds else ""


def _evaluation(folder: Path, other: Path | None) -> _Page:
    metrics, records = _read(folder / "metrics.json"), _read(folder / "records.json")
    comparison = None if other is None else compare(folder, other)
    try:
        schema = Schema.from_dict(records["schema"], str(folder / "records.json"))
        schema = schema.with_vocabularies(records["vocabularies"])
        clips = records["clips"]
        context = page_context(schema, metrics, clips, comparison)
        details = [clip_detail(schema, record) for record in clips]
        return _Page("report.html", context, browser_data(schema, clips), details, clips)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder} is not an evaluation of this version ({error!r}); run `evaluate` again") from error


def _answers(files: Sequence[Path]) -> _Page:
    """The same of predictions alone."""
    predictions = [prediction for file in files for prediction in read_predictions(file)]
    if not predictions:
        raise ValueError(f"{files[0]} has no predictions; run `predict` again")
    places = [{"path": p.path, "event": p.source_event or "", "video": p.video} for p in predictions]
    details = [answer_detail(prediction) for prediction in predictions]
    return _Page("answers.html", answers_context(predictions), answers_data(predictions), details, places)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; give the folder that `evaluate` or `predict` wrote")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}); run `evaluate` again") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path} is not what `evaluate` writes; run `evaluate` again")
    return data
