"""Answers from frames that a format of the cache has changed, beside those from the frames as they are.

Enters: a folder that `demo` made, a folder of real clips, qualities of JPEG. Leaves: a Result. The demo's model answers
its test clips, which have a truth, and real ones, which have none and are nothing that it has learnt.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from benches.common import Bar, Result, Row, Table
from benches.predict_ways import module_for
from vlm_crash.data.datamodule import CrashDataModule
from vlm_crash.lightning_module import CrashVLM
from vlm_crash.metrics.field_match import FieldMatch
from vlm_crash.schema.fields import Schema
from vlm_crash.schema.records import Prediction
from vlm_crash.schema.response import parse
from vlm_crash.video.frame_cache import CacheSettings
from vlm_crash.video.frame_formats import FRAME_FORMATS, JPEG_QUALITY, jpeg

#: What the others are held against: every pixel as it was.
PLAIN = "lz4"
#: Bar of the default quality: no event is another, and the share of fields that are right moves by at most so much.
MOST_EXACT = 0.005
_BATCH = 8


@dataclass(frozen=True)
class Answers:
    """What a model says of clips, by their paths, and its scores where there is a truth (NaN: none).

    Args:
        share: bytes of the cached frames by those of the pixels.
    """

    predictions: dict[str, Prediction]
    balanced_accuracy: float
    exact_match: float
    share: float


@dataclass(frozen=True)
class Changes:
    """What is different in two answers to the same clips.

    Args:
        events: clips whose event is another.
        fields, texts: answers of choice and count fields, and of text fields, that are others, of those of the event
            that was said first.
        num_fields, num_texts: of how many.
        crash: largest change of the probability of the schema's first event.
        term: largest change of a term's probability, in clips whose event is the same.
    """

    events: int
    fields: int
    num_fields: int
    texts: int
    num_texts: int
    crash: float
    term: float


def changes(schema: Schema, before: dict[str, Prediction], after: dict[str, Prediction]) -> Changes:
    """What changed from one set of answers to another; both are of the same clips, and none has failed."""
    count = dict.fromkeys(("events", "fields", "num_fields", "texts", "num_texts"), 0)
    crash = term = 0.0
    for path, old in before.items():
        new = after[path]
        assert old.event is not None and old.event_probability is not None and new.event_probability is not None
        count["events"] += old.event != new.event
        crash = max(crash, abs(old.event_probability - new.event_probability))
        for field in schema.event(old.event).fields:
            kind = "texts" if field.kind == "text" else "fields"
            count[f"num_{kind}"] += 1
            count[kind] += old.fields.get(field.name) != new.fields.get(field.name)
        for name, terms in old.field_probabilities.items() if old.event == new.event else ():
            found = new.field_probabilities[name]
            term = max(term, *(abs(found[said] - probability) for said, probability in terms.items()))
    return Changes(**count, crash=crash, term=term)


def answers(demo: Path, real: Sequence[Path], qualities: Sequence[int], most_tokens: int) -> Result:
    """Every way on the same clips.

    Raises:
        SystemExit: no such folder.
    """
    model, dataset = demo / "fit" / "model", demo / "dataset"
    for folder in (model, dataset):
        if not folder.is_dir():
            raise SystemExit(f"--parts answers needs a folder that `python -m vlm_crash demo` made; no {folder}")
    module = module_for(model, "weights", "best_term", most_tokens)
    rows: list[Row] = []
    ratios, bars = {}, []
    sets: dict[str, dict[str, object]] = {"test": {"folder": dataset, "num_videos": 0}, "real": {"clips": list(real)}}
    for what, options in sets.items() if real else [("test", sets["test"])]:
        with _formats(qualities) as names:
            found = {name: _answers(module, options, name) for name in (PLAIN, "zstd", "webp", *names)}
        plain = found[PLAIN]
        for name, said in found.items():
            moved = changes(module.schema, plain.predictions, said.predictions)
            rows.append(_row(f"{len(said.predictions)} {what}", name, said, moved))
            ratios[f"crash_moved_{name}_{what}".replace(" ", "")] = moved.crash
            if name == f"jpeg {JPEG_QUALITY}" and what == "test":
                apart = abs(said.exact_match - plain.exact_match)
                text = (
                    f"{name}: {moved.events} of {len(plain.predictions)} test clips have another event, none may; the "
                    f"share of right fields moves by {apart:.4f}, at most {MOST_EXACT}"
                )
                bars.append(Bar(text, moved.events == 0 and apart <= MOST_EXACT))
    table = Table(
        "Answers from cached frames",
        f"{model} on the demo's test split and, without a truth, on real clips, of which it has learnt nothing; "
        f"best_term, at most {most_tokens} tokens a text. Each row beside {PLAIN}, which gives back every pixel. Size: "
        "of the pixels as they are. Fields: choices and counts that are others; texts likewise. P(crash), P(term): the "
        "largest change of any clip.",
        ("clips", "format", "size (share)", "other events", "other fields", "of fields", "other texts", "of texts",
         "P(crash)", "P(term)", "event, balanced accuracy", "fields, exact match"),
        rows,
    )  # fmt: skip
    notes = [] if real else ["real clips: there are none"]
    return Result("cache answers", [table], ratios, notes, bars)


def _row(clips: str, name: str, said: Answers, moved: Changes) -> Row:
    counts = (moved.events, moved.fields, moved.num_fields, moved.texts, moved.num_texts)
    has_truth = said.exact_match == said.exact_match
    scores = (said.balanced_accuracy, said.exact_match) if has_truth else (None, None)
    return (clips, name, said.share, *counts, moved.crash, moved.term, *scores)


@contextmanager
def _formats(qualities: Sequence[int]) -> Iterator[list[str]]:
    """The cache's formats and JPEG of these qualities, by name, for as long as this lasts."""
    added = {f"jpeg {quality}": jpeg(quality) for quality in qualities}
    FRAME_FORMATS.update(added)
    try:
        yield list(added)
    finally:
        for name in added:
            del FRAME_FORMATS[name]


def _answers(module: CrashVLM, options: dict[str, object], name: str) -> Answers:
    with tempfile.TemporaryDirectory() as folder:
        cache = CacheSettings(Path(folder), format=name)
        data = CrashDataModule(**options, batch_size=_BATCH, num_workers=0, cache=cache)  # type: ignore[arg-type]
        data.connect(module.inputs)
        data.setup("predict")
        assert data.recipe is not None
        module.conversation = data.recipe.tokenizer
        scores = FieldMatch(module.schema, None)
        found: dict[str, Prediction] = {}
        with torch.inference_mode():
            for batch in data.predict_dataloader():
                said = module.answer(batch)
                found |= {prediction.path: prediction for prediction in said}
                known = [(one, sample.annotation) for one, sample in zip(said, batch.samples, strict=True)]
                parsed = [parse(module.schema, one.response) for one, truth in known if truth is not None]
                scores.update(parsed, [truth for _, truth in known if truth is not None])
        files = [path for path in (Path(folder) / "frames").rglob("*") if path.is_file()]
        pixels = len(files) * data.recipe.sampling.num_frames * 3 * data.recipe.image_size**2
        share = sum(path.stat().st_size for path in files) / pixels
    figures = scores.compute()
    return Answers(found, float(figures["event/balanced_accuracy"]), float(figures["mean"]), share)
