"""Processes that share weights stay in step where their work differs; where one stays away, the others say so."""

import pytest

from tests.parallel.micro import Micro, validate


@pytest.fixture(scope="module")
def found(launch, micro_model):
    return launch("validation", 2, micro_model)


def test_answers_of_other_lengths(found):
    assert found[0]["lengths"] == (0, 0, 0)
    assert found[1]["lengths"] == (6, 6, 6)


def test_five_clips_on_two_processes(found, micro_model):
    loss = validate(Micro(micro_model))
    assert found[0]["loss"] == found[1]["loss"] == pytest.approx(loss, rel=1e-6)


def test_a_process_that_does_not_send_its_part(found):
    """Within the time-out of the group for checkpoints, not that of the gradients."""
    error = found[0]["error"]
    assert error.startswith("a.weight could not be gathered within 0:00:02: a process is gone or too slow")
    assert "checkpoint_timeout" in error
    assert 2 <= found[0]["seconds"] < 5
