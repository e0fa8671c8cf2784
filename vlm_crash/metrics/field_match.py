"""`FieldMatch`: scores per field over a run of (answer, truth) pairs, exact over any number of processes.

In: `ParsedResponse` beside `Annotation`. Out: a dict of scalar tensors. States are sums per field and per event,
so that the sum over processes is the state of one process.
Suffixes: K all fields of all events in schema order, E events.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from vlm_crash.metrics.functional import Verdict, clip_verdicts, is_scored
from vlm_crash.metrics.text_similarity import SentenceEmbedder
from vlm_crash.schema.fields import Schema
from vlm_crash.schema.records import Annotation, ParsedResponse


class FieldMatch(Metric):
    """Exact match per categorical and count field, mean cosine per text field; a missing answer is wrong.

    Only fields whose truth is known are counted. `compute` returns shares: "crash/Weather" per field, "crash/mean"
    (exact match over that event's categorical and count fields) and "crash/text_mean", "mean" and "text_mean" over the
    fields of all events, "event/accuracy" and "event/balanced_accuracy". NaN where nothing was counted, never 0.

    Args:
        schema: events and fields.
        embedder: model of the text fields: "minilm", a folder or a name; None: text scores are NaN.
        given_event: fields of a wrongly named event are not wrong by that; give answers parsed under the true event.
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False

    score_sum_K: Tensor
    total_K: Tensor
    missing_K: Tensor
    not_understood_K: Tensor
    event_right_E: Tensor
    event_total_E: Tensor

    def __init__(self, schema: Schema, embedder: str | None = "minilm", given_event: bool = False) -> None:
        super().__init__()
        self.schema = schema
        self.given_event = given_event
        self.embedder = None if embedder is None else SentenceEmbedder(embedder)
        self.keys = [(event.name, field.name) for event in schema.events for field in event.fields]
        self._exact_K = torch.tensor([is_scored(field) for event in schema.events for field in event.fields])
        num_fields, num_events = len(self.keys), len(schema.events)
        self.add_state("score_sum_K", torch.zeros(num_fields, dtype=torch.float64), dist_reduce_fx="sum")
        for name in ("total_K", "missing_K", "not_understood_K"):
            self.add_state(name, torch.zeros(num_fields, dtype=torch.long), dist_reduce_fx="sum")
        for name in ("event_right_E", "event_total_E"):
            self.add_state(name, torch.zeros(num_events, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, preds: Sequence[ParsedResponse], target: Sequence[Annotation]) -> None:
        """Count a batch of answers beside their truths.

        Raises:
            ValueError: the two differ in length, or a truth's event is not in the schema.
        """
        if len(preds) != len(target):
            raise ValueError(f"{len(preds)} answers cannot be scored against {len(target)} truths")
        index = {key: k for k, key in enumerate(self.keys)}
        texts: list[tuple[int, str, str]] = []
        for parsed, truth in zip(preds, target, strict=True):
            event = self.schema.event(truth.event)
            e = self.schema.event_names.index(truth.event)
            self.event_total_E[e] += 1
            self.event_right_E[e] += int(parsed.event == truth.event)
            for name, verdict in clip_verdicts(event, truth, parsed, self.given_event).items():
                k = index[truth.event, name]
                self.total_K[k] += int(verdict.counted)
                self.missing_K[k] += int(verdict is Verdict.MISSING)
                self.not_understood_K[k] += int(verdict is Verdict.NOT_UNDERSTOOD)
                self.score_sum_K[k] += int(verdict is Verdict.RIGHT)
                if verdict is Verdict.COMPARED:
                    texts.append((k, str(parsed.answers[name].value), truth.values[name]))
        self._add_texts(texts)

    def _add_texts(self, texts: list[tuple[int, str, str]]) -> None:
        if self.embedder is None or not texts:
            return
        cosine_N = self.embedder.cosine([said for _, said, _ in texts], [truth for _, _, truth in texts])
        fields_N = torch.tensor([k for k, _, _ in texts], device=self.score_sum_K.device)
        self.score_sum_K.index_add_(0, fields_N, cosine_N.to(self.score_sum_K))

    def compute(self) -> dict[str, Tensor]:
        """Scalar float32 tensors by name (see the class)."""
        exact_K = self._exact_K.to(self.total_K.device)
        score_K = self.score_sum_K / self.total_K  # 0 / 0 is NaN: nothing counted is not a score of 0
        if self.embedder is None:
            score_K = score_K.where(exact_K, torch.nan)
        out = {f"{event}/{field}": score_K[k] for k, (event, field) in enumerate(self.keys)}
        for event in self.schema.event_names:
            is_event_K = torch.tensor([key[0] == event for key in self.keys], device=exact_K.device)
            out[f"{event}/mean"] = score_K[is_event_K & exact_K].nanmean()
            out[f"{event}/text_mean"] = score_K[is_event_K & ~exact_K].nanmean()
        out["mean"] = score_K[exact_K].nanmean()
        out["text_mean"] = score_K[~exact_K].nanmean()
        out["event/accuracy"] = self.event_right_E.sum().double() / self.event_total_E.sum()
        recall_E = self.event_right_E.double() / self.event_total_E
        one_event = int((self.event_total_E > 0).sum()) < 2
        out["event/balanced_accuracy"] = recall_E.new_tensor(torch.nan) if one_event else recall_E.nanmean()
        return {name: value.float() for name, value in out.items()}
