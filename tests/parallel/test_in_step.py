"""Processes that share weights stay in step where their work differs; where one stays away, the others say so."""

import pytest

from tests.parallel.micro import Counted, Micro, score


@pytest.fixture(scope="module")
def found(launch, micro_model):
    return launch("scored", 2, micro_model)


def test_answers_of_other_lengths(found):
    assert found[0]["lengths"] == (0, 0, 0)
    assert found[1]["lengths"] == (6, 6, 6)


def test_five_clips_on_two_processes(found, micro_model):
    loss = score(Micro(micro_model), "validate")["val/loss"]
    assert found[0]["loss"] == found[1]["loss"] == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize(
    ("stage", "answered", "rows"),
    [("validate", (["0", "2"], ["1"]), 2), ("test", (["0", "2", "4"], ["1", "3"]), 3)],
)
def test_as_many_rows_are_answered_on_each_process(found, micro_model, stage, answered, rows):
    """Three answers of five clips in validation, five in test: the last process computes one that is dropped."""
    assert tuple(of_rank[stage]["answered"] for of_rank in found) == answered
    assert [of_rank[stage]["rows"] for of_rank in found] == [rows, rows]
    alone = Counted(micro_model)
    metrics = score(alone, stage, batch_size=2)
    assert alone.counts["answered"] == sorted(answered[0] + answered[1])
    assert sum(of_rank[stage]["fields"] for of_rank in found) == alone.counts["fields"] > 0
    assert len(metrics) > 10
    for of_rank in found:
        assert of_rank[stage]["metrics"] == pytest.approx(metrics, rel=1e-6)


def test_a_process_that_does_not_send_its_part(found):
    """Within the time-out of the group for checkpoints, not that of the gradients."""
    error = found[0]["error"]
    assert error.startswith("a.weight could not be gathered within 0:00:05: a process is gone or too slow")
    assert "checkpoint_timeout" in error
