"""What a training run says where there is no progress bar: by optimizer step, and once."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vlm_crash.callbacks.monitoring import TrainingMonitor

BATCH: Any = SimpleNamespace(num_tokens=10, samples=[None])
STRATEGY: Any = SimpleNamespace(root_device=torch.device("cpu"))
MODULE: Any = SimpleNamespace(log_dict=lambda numbers: None)


def trainer(**values: Any) -> Any:
    return SimpleNamespace(
        **{
            "global_step": 0, "log_every_n_steps": 2, "accumulate_grad_batches": 4, "is_global_zero": True,
            "progress_bar_callback": None, "current_epoch": 0, "estimated_stepping_batches": 5,
            "sanity_checking": False, "strategy": STRATEGY, "precision_plugin": None,
            "callback_metrics": {"train/loss": torch.tensor(2.0)}, **values,
        }
    )  # fmt: skip


@pytest.mark.parametrize("is_global_zero", [True, False])
def test_a_line_a_step_on_the_first_process(caplog, is_global_zero):
    """Twenty batches, four a step: lines after steps 2 and 4, with the whole loss."""
    run, monitor = trainer(is_global_zero=is_global_zero), TrainingMonitor()
    monitor.on_train_start(run, MODULE)
    with caplog.at_level(logging.INFO):
        for index in range(20):
            monitor._batch_start = monitor._batch_end or 0.0
            run.global_step = (index + 1) // 4
            monitor.on_train_batch_end(run, MODULE, {"loss": torch.tensor(0.5)}, BATCH, index)
    lines = [line.split(", ")[:2] for line in caplog.messages]
    assert lines == (
        [["epoch 0", "step 2 of 5: loss 2.0000"], ["epoch 0", "step 4 of 5: loss 2.0000"]] * is_global_zero
    )


@pytest.mark.parametrize(
    ("values", "lines"),
    [
        ({}, ["validation after step 7: val/loss 0.5000, val/event/balanced_accuracy 0.7500, val/mean 0.2500"]),
        ({"is_global_zero": False}, []),
        ({"sanity_checking": True}, []),
    ],
)
def test_a_line_a_validation(caplog, values, lines):
    scores = {"val/loss": 0.5, "val/mean": 0.25, "val/event/balanced_accuracy": 0.75, "train/loss": 1.0}
    metrics = {name: torch.tensor(score) for name, score in scores.items()}
    with caplog.at_level(logging.INFO):
        TrainingMonitor().on_validation_end(trainer(global_step=7, callback_metrics=metrics, **values), MODULE)
    assert caplog.messages == lines


def test_what_an_epoch_waited_for_data(caplog, monkeypatch):
    """A clock of its own: each batch is waited for 1 s and takes 3 s; what lies between the epochs is not counted."""
    clock, logged = [0.0], {}
    monkeypatch.setattr("vlm_crash.callbacks.monitoring.time.perf_counter", lambda: clock[0])
    run, monitor = trainer(log_every_n_steps=1000), TrainingMonitor()
    module: Any = SimpleNamespace(log=logged.__setitem__, log_dict=lambda numbers: None)
    monitor.on_train_start(run, module)
    with caplog.at_level(logging.INFO):
        for epoch, waits in enumerate([(1, 1), (0, 1)]):
            run.current_epoch = epoch
            clock[0] += 100
            monitor.on_train_epoch_start(run, module)
            for wait in waits:
                clock[0] += wait
                monitor.on_train_batch_start(trainer(is_global_zero=False), module, BATCH, 0)
                clock[0] += 3
                monitor.on_train_batch_end(run, module, {}, BATCH, 0)
            monitor.on_train_epoch_end(run, module)
            assert logged["speed/epoch_data_wait_share"] == pytest.approx([2 / 8, 1 / 7][epoch])
    assert caplog.messages == [
        "epoch 0: 25.0 % of the time waiting for data", "epoch 1: 14.3 % of the time waiting for data"
    ]  # fmt: skip
