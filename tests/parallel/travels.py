"""Checks of worker.py: runs that are stopped, killed or told to stop, and go on."""

import os
import signal
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from lightning import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.utilities.exceptions import SIGTERMException

from tests.parallel.journey import travel
from tests.parallel.place import RANK, WORLD
from vlm_crash.parallel.checkpoint import Stored
from vlm_crash.parallel.whole_files import standing

STEPS = 17  # of four clips, three an epoch: ten after step 7
SOON = 11  # beyond the end of an epoch, and of a validation, after each place where a run goes on
PRECISIONS = ("32-true", "16-mixed")


class Named(ModelCheckpoint):
    """So that a run may have several."""

    @property
    def state_key(self) -> str:
        return f"{super().state_key} {self.filename} {self._every_n_train_steps}"


def every(folder: Path, name: str, **options: Any) -> ModelCheckpoint:
    return Named(dirpath=folder, filename=name + "{step}", auto_insert_metric_name=False, save_top_k=-1, **options)


def steps(folder: Path, *numbers: int) -> tuple[ModelCheckpoint, ...]:
    """Checkpoints after these steps and their multiples."""
    return tuple(every(folder, "step", every_n_train_steps=number) for number in numbers)


def resume(model: str, prepared: str, out: str) -> dict[str, Any]:
    """A run with checkpoints at every kind of place, and runs that go on from each."""
    folder, found = Path(out), {}
    run = partial(travel, Path(model), Path(prepared), world=WORLD, steps=STEPS)
    at_ends = {False: "validation", True: "epoch"}
    for kind in ("sharded", "full"):
        saved = folder / kind
        saves = steps(saved, 7) if kind == "full" else (
            *steps(saved, 6, 7, 8),
            *(every(saved, name, every_n_epochs=2, save_on_train_epoch_end=end) for end, name in at_ends.items()),
        )  # fmt: skip
        whole, until = folder / f"{kind} whole", None if kind == "sharded" else SOON
        losses = {"whole": Losses()}
        found[f"{kind} whole"] = run(out=whole, kind=kind, saves=saves, until=until, callbacks=(losses["whole"],))
        places = ("step7", "step8", "step6", "validation6", "epoch6") if kind == "sharded" else ("step7",)
        for place in places:
            at = folder / f"{kind} {place}"
            until = None if (kind, place) == ("sharded", "step7") else SOON
            path, losses[place] = saved / f"{place}.ckpt", Losses()
            found[f"{kind} {place}"] = run(
                out=at, kind=kind, ckpt_path=path, until=until, callbacks=(losses[place],)
            )  # fmt: skip
        found[f"{kind} losses"] = {name: of_run.by_step for name, of_run in losses.items()}
    again = folder / "again"
    saves = (every(again, "epoch", every_n_epochs=1, save_on_train_epoch_end=True),)
    run(out=folder / "from epoch6", ckpt_path=folder / "sharded/epoch6.ckpt", saves=saves, until=9)
    found["epoch9 of epoch6"] = run(out=folder / "epoch9 of epoch6", ckpt_path=again / "epoch9.ckpt", until=SOON)
    path = folder / "sharded/step7.ckpt"
    found["workers"] = run(out=folder / "workers", ckpt_path=path, num_workers=2, until=SOON)
    found["16-mixed"] = found["sharded whole"]
    found["32-true"] = run(out=folder / "32-true whole", precision="32-true", saves=steps(folder / "32-true", 7))
    return found


def resume_elsewhere(model: str, prepared: str, out: str) -> dict[str, Any]:
    """One process goes on from step 7 of two; four go on from step 7 of one."""
    folder, found = Path(out), {}
    run = partial(travel, Path(model), Path(prepared), world=WORLD, steps=STEPS)
    for precision in PRECISIONS:
        of_two = folder / ("sharded" if precision == "16-mixed" else precision) / "step7.ckpt"
        of_one = folder / f"one {precision}" / "step7.ckpt"
        at = folder / f"{WORLD} {precision}"
        found[precision] = run(out=at, precision=precision, ckpt_path=of_two if WORLD == 1 else of_one)
        if WORLD == 1:
            saves, at = steps(of_one.parent, 7), folder / f"one {precision} whole"
            found[f"whole {precision}"] = run(out=at, precision=precision, saves=saves)
    if WORLD == 1:
        path = folder / "32-true/step7.ckpt"
        found["plain"] = run(out=folder / "plain", strategy=SingleDeviceStrategy("cpu"), ckpt_path=path)
    return found


def keep_going(model: str, prepared: str, out: str) -> None:
    """A run that saves after every step, always under the same name, and goes on from what is there."""
    last = Path(out) / "last.ckpt"
    found = last if standing(last).exists() else None
    saves = (every(Path(out), "last", every_n_train_steps=1, enable_version_counter=False),)
    saves[0].filename = "last"
    travel(Path(model), Path(prepared), Path(out), world=WORLD, steps=STEPS, ckpt_path=found, saves=saves)


class Losses(Callback):
    """Validation losses, by the step after which each was computed."""

    def __init__(self) -> None:
        self.by_step: dict[int, float] = {}

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self.by_step[trainer.global_step] = float(trainer.callback_metrics["val/loss"])


def as_titan(folder: Path, last: int = 5) -> tuple[ModelCheckpoint, ...]:
    """The two checkpoints of configs/titan.yaml."""
    return (
        ModelCheckpoint(
            dirpath=folder, every_n_train_steps=last, save_top_k=0, save_last=True, save_on_exception=True
        ),
        ModelCheckpoint(
            dirpath=folder, filename="best-{epoch}-{step}", monitor="val/loss", save_top_k=1, save_weights_only=True
        ),
    )  # fmt: skip


def keep(model: str, prepared: str, out: str) -> dict[str, Any]:
    """What is left of a run's checkpoints, of both kinds; a run that would go on from weights alone."""
    found: dict[str, Any] = {}
    run = partial(travel, Path(model), Path(prepared), world=WORLD)
    for kind in ("sharded", "full"):
        folder, losses = Path(out) / kind, Losses()
        saves = as_titan(folder)
        run(out=Path(out) / f"{kind} run", steps=10, kind=kind, saves=saves, callbacks=(losses,))
        names = sorted(path.name for path in folder.iterdir())
        found[kind] = {"names": names, "losses": losses.by_step, "best": Path(saves[1].best_model_path).name}
    try:
        run(out=Path(out) / "on", steps=12, ckpt_path=Path(out) / "sharded" / found["sharded"]["best"])
    except ValueError as error:
        found["weights only"] = str(error)
    return found


class At(Callback):
    """Does something on the last process as its fourth optimizer step begins."""

    def __init__(self, action: Any) -> None:
        self.action = action

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 3 and RANK == WORLD - 1 and self.action is not None:
            action, self.action = self.action, None
            action()


def told(model: str, prepared: str, out: str) -> dict[str, int]:
    """The last process alone is told to stop; the step of the checkpoint that all leave."""
    found = {}
    for name in ("SIGTERM", "SIGUSR1"):
        folder = Path(out) / name
        tell = At(partial(os.kill, os.getpid(), getattr(signal, name)))
        try:
            travel(
                Path(model), Path(prepared), folder, WORLD, steps=STEPS, saves=as_titan(folder, last=50),
                callbacks=(tell,),
            )  # fmt: skip
        except SIGTERMException:
            found[name] = int(Stored(folder / "last.ckpt").rest["global_step"])
    return found


class InValidation(Callback):
    """Tells the last process to stop in the first batch of the validation after a step; counts batches by step."""

    def __init__(self, step: int | None = None) -> None:
        self.step = step
        self.batches: dict[int, int] = {}

    def on_validation_batch_start(self, trainer: Any, *_: Any) -> None:
        step = trainer.global_step
        self.batches[step] = self.batches.get(step, 0) + 1
        if step == self.step and RANK == WORLD - 1:
            os.kill(os.getpid(), signal.SIGTERM)


def told_in_validation(model: str, prepared: str, out: str) -> dict[str, Any]:
    """A whole run; one that is told to stop in its second validation, with a checkpoint of that step from before; and
    one that goes on from what it leaves."""
    found: dict[str, Any] = {}

    def run(name: str, path: Path | None = None, step: int | None = None) -> None:
        folder, losses, count = Path(out) / name, Losses(), InValidation(step)
        journal: Any = None
        with suppress(SIGTERMException):
            journal, _ = travel(
                Path(model), Path(prepared), folder, WORLD, steps=10, ckpt_path=path, saves=as_titan(folder, last=6),
                callbacks=(losses, count), validations=2,
            )  # fmt: skip
        best = sorted(path.name for path in folder.glob("best*"))
        found[name] = {"journal": journal, "losses": losses.by_step, "batches": count.batches, "best": best}
        if path is None and step is not None:
            rest = Stored(folder / "last.ckpt").rest
            found[name]["step"] = rest["global_step"]

    run("whole")
    run("stopped", step=6)
    run("on", Path(out) / "stopped" / "last.ckpt")
    return found


def fail(model: str, prepared: str, out: str) -> None:
    """The last process meets an error."""

    def stumble() -> None:
        raise RuntimeError("stumbled")

    saves = as_titan(Path(out) / "checkpoints", last=50)
    travel(
        Path(model), Path(prepared), Path(out) / "run", WORLD, steps=STEPS, saves=saves, callbacks=(At(stumble),)
    )  # fmt: skip
