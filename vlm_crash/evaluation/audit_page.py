"""An AuditReport -> audit.html: findings, the leaking pairs with their first frames, shortcuts, balance.

One self-contained page, in the dress of the report: no network, no script. Texts are escaped by jinja2.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlm_crash.data.audit import AuditReport
from vlm_crash.data.audit_copies import Pair
from vlm_crash.data.files import write_files
from vlm_crash.data.splits import SPLITS
from vlm_crash.evaluation.page_rendering import render
from vlm_crash.schema.records import VideoSample
from vlm_crash.video.frame_sampling import FrameSampling
from vlm_crash.video.guarded import UnreadableClipError, read_frames

#: Pairs whose frames are shown; audit.json has all.
MAX_PAIRS = 200
#: The first frame of a clip.
_FIRST = FrameSampling(1, end_s=1e-3)
_BOX = (240, 180)  # pixels; the aspect ratio of the clip is kept


def write_audit_page(report: AuditReport, out: Path, clip_timeout_s: float | None) -> None:
    """Write the page.

    Args:
        out: its path.
        clip_timeout_s: most seconds to read a frame of a clip; None or 0: no limit.

    Raises:
        OSError: it cannot be written; an old one is as it was then.
    """
    shown = [_shown(pair, report.split_of, clip_timeout_s) for pair in report.leaks[:MAX_PAIRS]]
    page = render("audit.html", audit_context(report) | {"pairs": shown})
    write_files({out: page})


def audit_context(report: AuditReport) -> dict[str, Any]:
    """What the page shows, without the frames. Pure."""
    by_severity = {
        severity: [finding for finding in report.findings if finding.severity == severity]
        for severity in ("leak", "warning", "note")
    }
    return {
        "page_title": f"Audit of {report.dataset.name}",
        "dataset": str(report.dataset),
        "num_clips": {split: len(samples) for split, samples in report.splits.items()},
        "findings": by_severity,
        "num_leaks": len(report.leaks),
        "shortcuts": [one.to_json() for one in report.shortcuts],
        "balance": _balance(report.counts),
        "splits": SPLITS,
        "settings": report.settings,
    }


def _balance(counts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Fields with their terms, and how many clips of each split say so."""
    tables = []
    for event, fields in counts.items():
        for name, by_split in fields.items():
            terms = {term: None for split in SPLITS for term in by_split.get(split, {})}
            said = [by_split.get(split, {}) for split in SPLITS]
            totals = [sum(one.values()) for one in said]
            rows = [
                {"term": term, "cells": [_cell(one.get(term, 0), n) for one, n in zip(said, totals, strict=True)]}
                for term in terms
            ]
            label = f"{event.replace('_', ' ')}: {name.replace('_', ' ')}" if event else "Event"
            tables.append({"label": label, "rows": rows, "n": sum(totals)})
    return [table for table in tables if table["n"]]


def _cell(n: int, total: int) -> dict[str, Any]:
    return {"n": n, "share": n / total if total else 0.0}


def _shown(pair: Pair, split_of: Mapping[str, str], clip_timeout_s: float | None) -> dict[str, Any]:
    return {
        "kind": pair.kind,
        "share": pair.share,
        "bits": pair.bits,
        "clips": [_clip(sample, split_of, clip_timeout_s) for sample in (pair.first, pair.second)],
    }


def _clip(sample: VideoSample, split_of: Mapping[str, str], clip_timeout_s: float | None) -> dict[str, Any]:
    shown = {
        "name": f"{sample.event}/{sample.video}",
        "split": split_of[sample.id],
        "path": str(sample.path),
        "image": None,
        "reason": "",
    }
    try:
        frames = read_frames(sample.path, _FIRST, timeout_s=clip_timeout_s)
    except UnreadableClipError as error:
        return {**shown, "reason": error.reason}
    return {**shown, "image": _jpeg_uri(frames.frames_FHWC[0])}


def _jpeg_uri(frame_HWC: Any) -> str:
    from PIL import Image

    image = Image.fromarray(frame_HWC)
    image.thumbnail(_BOX, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=75)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
