"""Each process of a run finds its clips by itself."""

from pathlib import Path
from typing import Any

from lightning import Trainer

from tests.parallel.place import RANK, WORLD
from vlm_crash.data import quarantine
from vlm_crash.data.clip_table import Stamp
from vlm_crash.data.datamodule import CrashDataModule
from vlm_crash.parallel import FSDPStrategy


def clips_found(dataset: str) -> dict[str, Any]:
    """How many clips each process trains on; then what it says where the second sees another size of each file."""
    trainer = Trainer(
        accelerator="cpu", devices=WORLD, strategy=FSDPStrategy(), logger=False, enable_checkpointing=False
    )
    trainer.strategy.setup_environment()
    found: dict[str, Any] = {"same": len(_set_up(trainer, dataset))}
    if RANK == 1:
        quarantine.Stamp = Other  # type: ignore[misc]
    try:
        _set_up(trainer, dataset)
    except ValueError as error:
        found["error"] = str(error)
    return found


def _set_up(trainer: Trainer, dataset: str) -> Any:
    data = CrashDataModule(folder=Path(dataset))
    data.trainer = trainer
    data.setup("fit")
    return data.samples["train"]


class Other(Stamp):
    """Of a file that has grown."""

    @classmethod
    def of(cls, path: Any) -> Stamp:
        return Stamp(Stamp.of(path).bytes + "0", "0")
