import copy
import math
import pickle
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tests.parallel.forked import CONTEXT
from vlm_crash.metrics.field_match import FieldMatch
from vlm_crash.schema.fields import UNKNOWN, Schema
from vlm_crash.schema.records import Annotation, Answer, ParsedResponse

Pairs = list[tuple[ParsedResponse, Annotation]]


def _crash(weather: str, lanes: str, reason: str) -> Annotation:
    return Annotation("crash", {"Weather": weather, "Lanes": lanes, "Reason": reason})


def _nearmiss(weather: str, reason: str) -> Annotation:
    return Annotation("nearmiss", {"Weather": weather, "Reason": reason})


def _said(event: str | None, **values: str) -> ParsedResponse:
    return ParsedResponse(event, {name: Answer("value", value, value) for name, value in values.items()})


def _pairs() -> Pairs:
    return [
        (_said("crash", Weather="Rainy", Lanes="2", Reason="a"), _crash("Rainy", "2", "a")),
        (_said("crash", Weather="Clear", Lanes="3"), _crash("Rainy", "3", "a")),
        (_said("nearmiss", Weather="Foggy", Reason="a"), _crash("Foggy", UNKNOWN, UNKNOWN)),
        (_said("nearmiss", Weather="Clear", Reason="bbb"), _nearmiss("Clear", "a")),
        (_said(None, Weather="Clear", Reason="a"), _nearmiss("Clear", "a")),
    ]


class _Lengths:
    """Cosine stand-in: 1 for equal texts, -0.5 otherwise."""

    def cosine(self, left: list[str], right: list[str]) -> torch.Tensor:
        return torch.tensor([1.0 if a == b else -0.5 for a, b in zip(left, right, strict=True)])


def _metric(schema: Schema, pairs: Pairs, given_event: bool = False) -> FieldMatch:
    metric = FieldMatch(schema, embedder="minilm", given_event=given_event)
    metric.embedder = _Lengths()  # type: ignore[assignment]
    if pairs:
        metric.update([said for said, _ in pairs], [truth for _, truth in pairs])
    return metric


def test_scores_end_to_end(schema: Schema):
    scores = {name: round(value.item(), 6) for name, value in _metric(schema, _pairs()).compute().items()}
    assert scores["crash/Weather"] == round(1 / 3, 6)  # right, wrong, called a near miss
    assert scores["crash/Lanes"] == 1.0  # the third truth is unknown and out
    assert scores["crash/Reason"] == 0.5  # equal, missing
    assert scores["nearmiss/Weather"] == 0.5  # right, no event said
    assert scores["nearmiss/Reason"] == -0.25  # the cosine is not clipped; no event said
    assert scores["crash/mean"] == round((1 / 3 + 1) / 2, 6)
    assert scores["mean"] == round((1 / 3 + 1 + 0.5) / 3, 6)
    assert scores["text_mean"] == 0.125
    assert scores["event/accuracy"] == 0.6
    assert scores["event/balanced_accuracy"] == round((2 / 3 + 1 / 2) / 2, 6)


def test_given_the_event_a_wrongly_named_one_costs_nothing(schema: Schema):
    scores = _metric(schema, _pairs(), given_event=True).compute()
    assert scores["crash/Weather"].item() == pytest.approx(2 / 3)
    assert scores["nearmiss/Weather"].item() == 1
    assert scores["nearmiss/Reason"].item() == pytest.approx(0.25)
    assert scores["event/accuracy"].item() == pytest.approx(0.6)


@pytest.mark.parametrize("said", [_said("crash"), ParsedResponse("crash", {"Weather": Answer("not_understood")})])
def test_silence_costs_as_much_as_a_wrong_answer(schema: Schema, said: ParsedResponse):
    right = _pairs()[:1]
    scores = _metric(schema, [*right, (said, _crash("Rainy", "1", "y"))]).compute()
    for name in ("crash/Weather", "crash/Lanes", "crash/Reason", "crash/mean"):
        assert scores[name].item() == 0.5


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_nothing_counted_is_nan_never_zero(schema: Schema):
    scores = _metric(schema, []).compute()
    assert all(math.isnan(value) for value in scores.values())
    only_crash = _metric(schema, _pairs()[:1]).compute()
    assert math.isnan(only_crash["nearmiss/Weather"])
    assert math.isnan(only_crash["event/balanced_accuracy"])  # one event's recall is no balanced accuracy
    assert only_crash["mean"].item() == 1


def test_without_embedder_texts_are_nan_and_the_rest_stands(schema: Schema):
    metric = FieldMatch(schema, embedder=None)
    metric.update(*map(list, zip(*_pairs(), strict=True)))
    scores = metric.compute()
    assert math.isnan(scores["crash/Reason"]) and math.isnan(scores["text_mean"])
    assert scores["crash/Lanes"].item() == 1


def test_unequal_batches_are_refused(schema: Schema):
    with pytest.raises(ValueError, match="1 answers cannot be scored against 0 truths"):
        FieldMatch(schema, embedder=None).update([_said("crash")], [])


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_batches_add_up_and_reset_forgets(schema: Schema):
    whole, parts = _metric(schema, _pairs()), _metric(schema, [])
    for said, truth in _pairs():
        parts.update([said], [truth])
    for name, value in whole.compute().items():
        torch.testing.assert_close(parts.compute()[name], value, equal_nan=True)
    parts.reset()
    assert math.isnan(parts.compute()["mean"])


def test_copies_and_pickles_keep_the_counts(schema: Schema):
    metric = FieldMatch(schema, embedder="minilm")
    metric.update([_said("crash", Weather="Rainy", Lanes="2")], [_crash("Rainy", "2", "a")])
    for other in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric)), metric.clone()):
        assert other.compute()["crash/mean"].item() == 1


def _run_rank(rank: int, schema: Schema, store: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=Path(store).as_uri(), rank=rank, world_size=2)
    metric = _metric(schema, _pairs()[:1] if rank == 0 else _pairs()[1:])  # shards of unequal size
    torch.save(metric.compute(), f"{out}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_equal_one(schema: Schema, tmp_path: Path):
    told = (schema, str(tmp_path / "store"), str(tmp_path))
    processes = [CONTEXT.Process(target=_run_rank, args=(rank, *told)) for rank in range(2)]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout=300)
    finally:
        for process in processes:
            process.kill()  # one that waits for another that failed
    assert [process.exitcode for process in processes] == [0, 0]
    want = _metric(schema, _pairs()).compute()
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), want, equal_nan=True, rtol=0, atol=0)
