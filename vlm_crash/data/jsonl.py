"""The conversation files: one JSON line a clip, in the form that the old scripts and upstream read.

`{"id", "video", "duration", "conversations": [{"from": "human", "value": "<image>\\n..."}, {"from": "gpt", "value"}]}`,
to which we add `"event"` and `"fields"`, so that nothing has to be parsed back. Files without the two are read too.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from vlm_crash.data.problems import InputProblems, Problem
from vlm_crash.schema.fields import Schema
from vlm_crash.schema.records import Annotation, VideoSample
from vlm_crash.schema.response import parse, render

logger = logging.getLogger(__name__)

#: Upstream's loader puts the frames where this stands in the human turn.
IMAGE_PREFIX = "<image>\n"


def to_line(sample: VideoSample, schema: Schema, question: str) -> str:
    """The JSON line of an annotated sample, without a line break."""
    assert sample.annotation is not None, "only annotated samples are written"
    line = {
        "id": sample.id,
        "video": sample.video,
        "duration": None if sample.duration_s is None else round(sample.duration_s, 3),
        "conversations": [
            {"from": "human", "value": IMAGE_PREFIX + question},
            {"from": "gpt", "value": render(schema, sample.annotation)},
        ],
        "event": sample.event,
        "fields": dict(sample.annotation.values),
    }
    return json.dumps(line, ensure_ascii=False)


def read_jsonl(path: Path, root: Path, schema: Schema, event: str | None = None) -> list[VideoSample]:
    """Samples of a conversation file, ours or the old scripts'.

    Args:
        path: the JSONL.
        root: folder of its clips.
        schema: events and fields.
        event: what the file is about; None: told by each line's "event", else by its answer.

    Raises:
        InputProblems: (a ValueError) with every line that cannot be read.
        FileNotFoundError: no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such conversation file; run `prepare`, or correct diy_ft_data.json")
    samples: list[VideoSample] = []
    problems: list[Problem] = []
    ids: set[str] = set()
    lost: list[str] = []
    for number, text in enumerate(_lines(path), start=1):
        if not text.strip():
            continue
        try:
            sample = _sample(json.loads(text), Path(root), schema, event, lost)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"no {error} in it" if isinstance(error, KeyError) else str(error)
            problems.append(Problem(str(path), number, "", what, "each line is one JSON object with its conversations"))
            continue
        if sample.id in ids:
            problems.append(Problem(str(path), number, sample.video, f"id {sample.id!r} is there twice", "keep one"))
        ids.add(sample.id)
        samples.append(sample)
    if problems:
        raise InputProblems("the conversations cannot be used", problems)
    if lost:
        shown = "; ".join(sorted(set(lost))[:10])
        logger.warning("%s: %d values were not understood and count as unknown: %s", path, len(lost), shown)
    return samples


def _lines(path: Path) -> list[str]:
    # By "\n" only: str.splitlines would also cut at characters such as U+2028, which JSON allows inside a string.
    try:
        return path.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        problem = Problem(str(path), None, "", f"it is not UTF-8 ({error.reason})", "save it as UTF-8")
        raise InputProblems("the conversations cannot be used", [problem]) from error


def _sample(line: Any, root: Path, schema: Schema, event: str | None, lost: list[str]) -> VideoSample:
    if not isinstance(line, dict):
        raise ValueError(f"it is no JSON object but {type(line).__name__}")
    said = [(turn["from"], str(turn["value"])) for turn in line.get("conversations", [])]
    turns = dict(said)
    if len(said) > len(turns):
        raise ValueError(f"it has {len(said)} turns: one question and one answer a clip are supported")
    answer = turns.get("gpt")
    event = event or line.get("event")
    video = str(line["video"])
    if "fields" in line:
        if event is None:
            raise ValueError("it has fields and no event")
        annotation = Annotation.of(schema, event, line["fields"])
    elif answer is not None:
        annotation = _parsed(schema, answer, event, lost)
    else:
        raise ValueError("it has neither fields nor a gpt turn")
    duration = line.get("duration")
    return VideoSample(
        id=str(line.get("id") or f"{annotation.event}_{video}"),
        video=video,
        path=root / video,
        event=annotation.event,
        annotation=annotation,
        duration_s=None if duration is None else float(duration),
        question=turns.get("human"),
        answer=answer,
    )


def _parsed(schema: Schema, answer: str, event: str | None, lost: list[str]) -> Annotation:
    parsed = parse(schema, answer, event)
    if parsed.event is None and event is None:
        raise ValueError("neither its file name nor its answer says which event it is about")
    event = event or str(parsed.event)
    values = {name: found.value for name, found in parsed.answers.items() if found.value is not None}
    lost += [f"{n}: {found.said!r}" for n, found in parsed.answers.items() if found.status == "not_understood"]
    return Annotation.of(schema, event, values)
