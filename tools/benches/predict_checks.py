"""Answers held against the schema, and against the truth of the demo's test clips.

Enters: random weights of the tiny shape; a folder that `demo` made. Leaves: a Result each.
"""

# Suffixes: B batch, S sequence, N frames.

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benches.common import Result, Row, Table
from benches.model import TINY
from benches.predict_ways import module_for, random_clips
from vlm_crash.data.collate import Collator
from vlm_crash.data.datamodule import CrashDataModule
from vlm_crash.lightning_module import CrashVLM
from vlm_crash.metrics.field_match import FieldMatch
from vlm_crash.schema.fields import Field, Schema
from vlm_crash.schema.records import Prediction
from vlm_crash.schema.response import parse

#: Answers of one draw of weights, and at once.
PER_MODEL, BATCH = 100, 25


@dataclass
class Count:
    """What was found in answers.

    Args:
        answers: all.
        events: by event; "none" where no event is said.
        fields: that an answer of its event has to fill in.
        violations: fields without a value, or with one outside the vocabulary, by (field, what it says).
        probabilities: fields whose probabilities do not sum to 1, or whose value is not the most probable term.
    """

    answers: int = 0
    events: Counter[str] = field(default_factory=Counter)
    fields: int = 0
    violations: Counter[tuple[str, str]] = field(default_factory=Counter)
    probabilities: Counter[str] = field(default_factory=Counter)

    def add(self, schema: Schema, prediction: Prediction) -> None:
        """Count an answer as its text reads."""
        self.answers += 1
        read = parse(schema, prediction.response)
        self.events[read.event or "none"] += 1
        if read.event is None:
            # Nothing says which fields there should be: the fewest that an event has, and none of them is there.
            fewest = min(len(event.fields) for event in schema.events)
            self.fields += fewest
            self.violations["all", "no event is said"] += fewest
            return
        for wanted in schema.event(read.event).fields:
            self.fields += 1
            found = read.answers[wanted.name]
            if not is_valid(wanted, found.value):
                self.violations[wanted.name, found.status if found.value is None else found.value] += 1
            told = prediction.field_probabilities.get(wanted.name)
            if told is not None and not is_consistent(told, found.value):
                self.probabilities[wanted.name] += 1


def is_valid(wanted: Field, value: str | None) -> bool:
    """Whether a value is a term of its field, a count, or a text.

    >>> colour = Field("Colour", ("Colour",), "Colour", (), "Car", "categorical", ("Red", "Blue"), closed=True)
    >>> is_valid(colour, "Red"), is_valid(colour, "Green"), is_valid(colour, None)
    (True, False, False)
    """
    if value is None:
        return False
    if wanted.kind == "count":
        return value.isascii() and value.isdigit()
    return bool(value) if wanted.kind == "text" or not wanted.vocabulary else value in wanted.vocabulary


def is_consistent(told: object, value: str | None) -> bool:
    """Whether probabilities by term sum to 1 and the value has the largest.

    >>> is_consistent({"Red": 0.75, "Blue": 0.25}, "Red"), is_consistent({"Red": 0.75, "Blue": 0.25}, "Blue")
    (True, False)
    >>> is_consistent({"Red": 0.75, "Blue": 0.75}, "Red")
    False
    """
    if not isinstance(told, Mapping) or not told:
        return False
    return abs(sum(told.values()) - 1) < 1e-5 and value in told and told[value] >= max(told.values())


def count_answers(number: int, text_tokens: int) -> Result:
    """Answers of random weights in the tiny shape, schema-constrained, and how many fields are not of the schema."""
    count = Count()
    for seed in range(-(-number // PER_MODEL)):
        module = module_for(TINY, "random", "best_term", text_tokens)
        scatter_weights(module, seed)
        for prediction in noise_answers(module, min(PER_MODEL, number - count.answers)):
            count.add(module.schema, prediction)
        print(f"{count.answers} answers, {sum(count.violations.values())} violations", file=sys.stderr)
    events: list[Row] = [[f"of them {event}", seen] for event, seen in sorted(count.events.items())]
    rows: list[Row] = [
        ["answers", count.answers],
        *events,
        ["fields", count.fields],
        ["fields without a valid value", sum(count.violations.values())],
        ["fields whose probabilities contradict", sum(count.probabilities.values())],
    ]
    worst: list[Row] = [[name, said, seen] for (name, said), seen in count.violations.most_common(10)]
    tables = [
        Table(
            "Fields of random answers",
            f"The tiny shape with random weights, new ones every {PER_MODEL} answers, clips of noise, decoding "
            f"best_term with at most {text_tokens} tokens a text field; each answer is read back from its text.",
            ["", "number"],
            rows,
        )
    ]
    if worst:
        tables.append(Table("Fields that are not valid", "The most frequent.", ["field", "said", "number"], worst))
    return Result("predict vocabulary", tables, {"violations": float(sum(count.violations.values()))})


def scatter_weights(module: CrashVLM, seed: int) -> None:
    """Random weights that are large enough to make logits differ."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.model.parameters():
            if parameter.ndim >= 2:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    torch.manual_seed(seed)  # of the clips


def noise_answers(module: CrashVLM, number: int) -> Iterable[Prediction]:
    """Answers to clips of noise."""
    data = CrashDataModule(num_frames=1)
    data.connect(module.inputs)
    assert data.recipe is not None
    module.conversation = data.recipe.tokenizer
    collate = Collator(data.recipe.tokenizer.end_token_id, "left")
    with torch.inference_mode():
        for first in range(0, number, BATCH):
            clips = random_clips(data.recipe, min(BATCH, number - first))
            yield from module.answer(collate([clip.item for clip in clips]))


# ------------------------------------------------------------------------------------------------------------- accuracy


def accuracy(demo: Path, most_tokens: int) -> Result:
    """Scores of both decodings on a demo's test clips, in one run.

    Raises:
        SystemExit: no such folder.
    """
    model, dataset = demo / "fit" / "model", demo / "dataset"
    for folder in (model, dataset):
        if not folder.is_dir():
            raise SystemExit(f"--parts accuracy needs a folder that `python -m vlm_crash demo` made; no {folder}")
    scores = {decoding: scores_of(model, dataset, decoding, most_tokens) for decoding in ("free", "best_term")}
    free, form = scores["free"], scores["best_term"]
    names = [name for name in free if not free[name].isnan() or not form[name].isnan()]
    worse = [name for name in ("event/balanced_accuracy", "mean") if form[name] < free[name]]
    rows: list[Row] = [[name, float(free[name]), float(form[name]), float(form[name] - free[name])] for name in names]
    table = Table(
        "Accuracy on the demo's test clips",
        f"Shares of right answers of {model} on the test split, exact match; texts are not scored. Bar: best_term not "
        f"below free in event/balanced_accuracy and mean: {'not met in ' + ', '.join(worse) if worse else 'met'}.",
        ["score", "free", "best_term", "difference"],
        rows,
    )
    ratios = {
        f"best_term_minus_free {name}": float(form[name] - free[name]) for name in ("event/balanced_accuracy", "mean")
    }
    return Result("predict accuracy", [table], ratios)


def scores_of(model: Path, dataset: Path, decoding: str, most_tokens: int) -> dict[str, torch.Tensor]:
    """FieldMatch's figures on the test split, each answer read from its text."""
    module = module_for(model, "weights", decoding, most_tokens)
    data = CrashDataModule(folder=dataset, batch_size=8, num_workers=0)
    data.connect(module.inputs)
    data.setup("test")
    assert data.recipe is not None
    module.conversation = data.recipe.tokenizer
    module.field_match = FieldMatch(data.dataset_schema, None)
    with torch.inference_mode():
        for batch in data.test_dataloader():
            module._score(batch)
    return module.field_match.compute()
