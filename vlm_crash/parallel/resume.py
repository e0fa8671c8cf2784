"""What a run needs beside weights, optimizers and schedulers to go on as if it had not been stopped.

Enters: a Trainer with a data module that keeps its place in the epoch. Leaves: in the checkpoint, every process' random
state and the place at which an optimizer step began; after a restart, both again.
"""

import random
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from vlm_crash.parallel.gathering import objects_of_all

KEY = "random_states"


def random_state() -> dict[str, Any]:
    """State of all random generators of this process, as plain values and tensors."""
    name, keys, *rest = np.random.get_state()
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Put all random generators of this process where they were."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def all_random_states(trainer: Trainer, own: dict[str, Any]) -> list[dict[str, Any]]:
    """Of every process, in their order; all must call, each with its own."""
    return objects_of_all(own, getattr(trainer.strategy, "cpu_group", None))


class ExactResume(Callback):
    """Random states and the place in the epoch, into the checkpoint and back.

    With another number of processes than before there are no states to give back (the order of the clips and the
    weights need none); the place in the epoch is counted in clips, and Lightning's counters in batches follow it.

    A checkpoint that is saved inside a validation, or after the batch that one follows, is one of the moment between
    them: the run that goes on from it begins with the whole validation, from the random states that it began with.
    """

    def __init__(self) -> None:
        self._states: list[dict[str, Any]] = []
        #: Before the validation that runs now; None: none runs.
        self._before: dict[str, Any] | None = None
        self._after_batch: dict[str, Any] = {}

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        # Not as a validation starts: by then its loader has drawn a seed.
        self._after_batch = random_state()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        self._before = self._after_batch
        for name in ("ready", "started"):  # what _begin_validation has said of a batch that is to come again
            total = trainer.fit_loop.epoch_loop.val_loop.batch_progress.total
            setattr(total, name, total.completed)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._before = None  # checkpoint callbacks come after this one

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[KEY] = all_random_states(trainer, self._before or random_state())
        if self._before is not None:
            _begin_validation(checkpoint["loops"]["fit_loop"])
        elif _comes_validation(trainer):
            _end_batch(checkpoint["loops"]["fit_loop"])
            _begin_validation(checkpoint["loops"]["fit_loop"])
        place = _place(trainer, checkpoint)
        if place:
            _set_batches(checkpoint["loops"], place["batches"], only_lower=True)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            return  # only a training goes on
        states = checkpoint.get(KEY, [])
        self._states = states if len(states) == trainer.world_size else []
        place = _place(trainer, checkpoint)
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        if place and hasattr(datamodule, "batches_of"):
            batches = datamodule.batches_of(place)
            if batches != place["batches"]:
                _set_batches(checkpoint["loops"], batches)
        if place:
            _unwind_epoch_end(checkpoint["loops"]["fit_loop"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._states:
            set_random_state(self._states[trainer.global_rank])
            self._states = []
        self._after_batch, self._before = random_state(), None  # a validation may be what comes first
        _begin_epoch(trainer.fit_loop)


def _place(trainer: Trainer, checkpoint: dict[str, Any]) -> dict[str, Any]:
    datamodule = trainer.datamodule  # type: ignore[attr-defined]
    return checkpoint.get(type(datamodule).__qualname__, {}) if datamodule is not None else {}


def _set_batches(loops: dict[str, Any], batches: int, only_lower: bool = False) -> None:
    """Say that this many batches of the current epoch are done.

    The batch that is being ended while Lightning saves counts as processed, not yet as completed; that stays so.
    """
    progress = loops["fit_loop"]["epoch_loop.batch_progress"]
    difference = batches - progress["current"]["processed"]
    if difference == 0 or (only_lower and difference > 0):
        return
    for counts in (progress["current"], progress["total"]):
        for kind in ("ready", "started", "processed", "completed"):
            counts[kind] = max(0, counts[kind] + difference)


def _unwind_epoch_end(loop: dict[str, Any]) -> None:
    """Turn the counters of a checkpoint saved at the end of an epoch into those of one saved after its last batch.

    Both mean the same. From the first, Lightning 2.6 counts the finished epoch once more: the next one gets the order
    of the clips of the one after it, and the run ends an epoch early. To be removed when test_resume's place "epoch6"
    passes without.
    """
    epochs, batches = loop["epoch_progress"], loop["epoch_loop.batch_progress"]
    current = epochs["current"]
    if not current["started"] == current["processed"] == current["completed"] + 1:
        return
    for counts in (current, epochs["total"]):
        counts["processed"] -= 1
    for counts in (batches["current"], batches["total"]):
        counts["completed"] -= 1
    loop["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1


def _begin_epoch(loop: Any) -> None:
    """Let the epoch after one that ended as the checkpoint was saved begin as any other.

    Lightning 2.6 counts the finished one as processed by now, and takes the next for one that was begun: its counters
    then say "none begun" in every later checkpoint, and a run that goes on from one of an epoch's end repeats that
    epoch. To be removed when test_resume's place "epoch9 of epoch6" passes without.
    """
    current = loop.epoch_progress.current
    if loop.restarted_mid_epoch and current.processed == current.started:
        loop.reset_restart_stage()


def _comes_validation(trainer: Trainer) -> bool:
    """Whether Lightning is at the end of a batch that is followed by a validation.

    One that comes because the run is told to stop, or after some minutes, does not come in the run that goes on.
    """
    loop: Any = trainer.fit_loop.epoch_loop
    batches, minutes = loop.batch_progress.current, getattr(trainer, "_val_check_time_interval", None)
    is_ending = batches.processed == batches.completed + 1 and not loop._should_accumulate()
    if not is_ending or minutes is not None:
        return False
    stops, trainer.should_stop = trainer.should_stop, False
    try:
        return bool(loop._should_check_val_fx(trainer.fit_loop._data_fetcher))
    finally:
        trainer.should_stop = stops


def _end_batch(loop: dict[str, Any]) -> None:
    """Say that the batch that is being ended is completed, and the validation before it is over."""
    batches, validation = loop["epoch_loop.batch_progress"], loop["epoch_loop.val_loop.batch_progress"]
    for counts in (batches["current"], batches["total"]):
        counts["completed"] += 1
    validation["current"].update(ready=0, started=0, processed=0, completed=0)


def _begin_validation(loop: dict[str, Any]) -> None:
    """Let a run that goes on begin with this validation, from its first batch.

    Lightning 2.6 takes up a validation where its counters say that a batch was begun and not ended
    (_EvaluationLoop.update_restart_stage); its scores so far are not in the checkpoint, so that batch is the first.
    """
    progress = loop["epoch_loop.val_loop.batch_progress"]
    done = progress["total"]["completed"] - progress["current"]["completed"]
    for counts, before in ((progress["current"], 0), (progress["total"], done)):
        counts.update(ready=before + 1, started=before + 1, processed=before, completed=before)
    progress["is_last_batch"] = False
