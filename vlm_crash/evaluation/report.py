"""An evaluation folder (metrics.json + records.json), or predictions alone -> one self-contained report.html.

The page needs no network and no file beside it: styles, script and frames (JPEG data URIs) are inside, and its
content-security policy forbids anything else. Texts are escaped by jinja2, or reach the page as JSON and textContent.
"""

from __future__ import annotations

import base64
import io
import json
import logging
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from tqdm import tqdm

from vlm_crash.data.files import write_files
from vlm_crash.evaluation.answers_page import answer_data, answers_context
from vlm_crash.evaluation.loading import read_predictions
from vlm_crash.evaluation.report_page import clip_data, page_context
from vlm_crash.schema.fields import Schema
from vlm_crash.video.frame_sampling import FrameSampling
from vlm_crash.video.guarded import UnreadableClipError, read_frames

logger = logging.getLogger(__name__)

NUM_FRAMES = 8
FRAME_BOX = (160, 90)  # pixels; the aspect ratio of the clip is kept
JPEG_QUALITY = 72


def report(folder: Path, out: Path | None = None, clips: Path | None = None) -> Path:
    """Write the page of an evaluation; of a folder that holds predictions only, a page of answers without scores.

    Args:
        folder: what `evaluate` wrote, or what `predict` wrote.
        out: the page; `report.html` in the folder when None.
        clips: where the clips lie now, as <event>/<name> or <name>, if not where they were predicted.

    Returns:
        The path of the page.

    Raises:
        FileNotFoundError: the folder holds neither.
        ValueError: its files are not what `evaluate` or `predict` writes, or there is no folder `clips`.
        OSError: the page cannot be written; an old one is as it was then.
    """
    folder = Path(folder)
    if clips is not None and not Path(clips).is_dir():
        raise ValueError(
            f"clips={str(clips)!r} is no folder; set --clips to the one that holds the clips, or leave it out"
        )
    lines = sorted(folder.glob("predictions*.jsonl"))
    if lines and not (folder / "metrics.json").is_file():
        name, context, shown, places = _answers(lines)
    else:
        name, context, shown, places = _evaluation(folder)
    frames = [_frames(place, clips) for place in tqdm(places, desc="frames", unit="clip", disable=None, leave=False)]
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template), autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["percent"] = lambda value: f"{100 * min(max(value, 0.0), 1.0):.2f}%"
    # The style and the script are ours; the JSON is made safe by _script_json. All else is escaped.
    page = environment.get_template(name).render(
        **context,
        css=jinja2.utils.markupsafe.Markup(_template("report.css")),
        js=jinja2.utils.markupsafe.Markup(_template("report.js")),
        clip_json=_script_json(shown),
        frame_json=[_script_json(found) for found in frames],
    )
    out = folder / "report.html" if out is None else Path(out)
    write_files({out: page})
    without = sum(not found["images"] for found in frames)
    if without:
        logger.warning("%d of %d clips are shown without frames; the page says why", without, len(frames))
    logger.info("report of %d clips: %s (%.1f MB)", len(frames), out, out.stat().st_size / 1e6)
    return out


_Page = tuple[str, dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]


def _evaluation(folder: Path) -> _Page:
    """Template, context, data and places of the clips of an evaluation."""
    metrics, records = _read(folder / "metrics.json"), _read(folder / "records.json")
    try:
        schema = Schema.from_dict(records["schema"], str(folder / "records.json"))
        schema = schema.with_vocabularies(records["vocabularies"])
        context = page_context(schema, metrics, records["clips"])
        shown = [clip_data(schema, record) for record in records["clips"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder} is not an evaluation of this version ({error!r}); run `evaluate` again") from error
    return "report.html", context, shown, records["clips"]


def _answers(files: Sequence[Path]) -> _Page:
    """The same of predictions alone."""
    predictions = [prediction for file in files for prediction in read_predictions(file)]
    if not predictions:
        raise ValueError(f"{files[0]} has no predictions; run `predict` again")
    places = [{"path": p.path, "event": p.source_event or "", "video": p.video} for p in predictions]
    return "answers.html", answers_context(predictions), [answer_data(p) for p in predictions], places


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


def _template(name: str) -> str:
    return (resources.files("vlm_crash.evaluation") / "templates" / name).read_text(encoding="utf-8")


def _script_json(data: Any) -> Any:
    """JSON that may stand inside a <script>: no character of it can end the element or open a comment."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return jinja2.utils.markupsafe.Markup(text)


def _frames(record: dict[str, Any], clips: Path | None) -> dict[str, Any]:
    """Frames of a clip as data URIs with their times, or the reason why there are none."""
    path = _find(record, clips)
    if path is None:
        where = record["path"] or record["video"]
        return {"images": [], "times": [], "reason": f"{where} is not there; give the folder of the clips by --clips"}
    try:
        frames = read_frames(path, FrameSampling(NUM_FRAMES))
    except UnreadableClipError as error:
        return {"images": [], "times": [], "reason": str(error)}
    return {
        "images": [_jpeg_uri(frame) for frame in frames.frames_FHWC],
        "times": [round(float(time), 2) for time in frames.times_s],
        "reason": "",
    }


def _find(record: dict[str, Any], clips: Path | None) -> Path | None:
    candidates = [Path(record["path"])]
    if clips is not None:
        candidates = [Path(clips) / record["event"] / record["video"], Path(clips) / record["video"], *candidates]
    return next((path for path in candidates if path.is_file()), None)


def _jpeg_uri(frame_HWC: Any) -> str:
    from PIL import Image

    image = Image.fromarray(frame_HWC)
    image.thumbnail(FRAME_BOX, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
