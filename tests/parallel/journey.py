"""Runs over real clips that are stopped and go on; each keeps a journal of its steps."""

import hashlib
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.parallel.micro import precision_plugin
from vlm_crash.callbacks import WholeCheckpoints
from vlm_crash.data.datamodule import CrashDataModule
from vlm_crash.data.dataset import ClipDataset
from vlm_crash.lightning_module import CrashVLM
from vlm_crash.parallel import FSDPStrategy
from vlm_crash.parallel.shards import local_part

GLOBAL_BATCH = 4
#: What this process has decoded: its runs are over the same clips.
_ITEMS: dict[tuple[str, bool], Any] = {}


class Traveller(CrashVLM):
    """Draws from every random generator in each step."""

    drawn: float = 0.0

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.drawn += random.random() + np.random.rand() + float(torch.rand(1))
        return super().training_step(batch, batch_idx)


class Journal(Callback):
    """A line for each optimizer step of this process, written as the step ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ids: list[str] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.ids += [sample.id for sample in batch.samples]
        if trainer.fit_loop._should_accumulate():
            return
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        line = {
            "step": trainer.global_step, "epoch": trainer.current_epoch, "loss": float(pl_module.token_mean.value),
            "ids": self.ids, "rate": trainer.optimizers[0].param_groups[0]["lr"], "drawn": pl_module.drawn,
            "scale": scaler.get_scale() if scaler else 1.0, "weights": checksum(pl_module.parameters()),
            "moments": checksum(moments(trainer.optimizers[0])),
        }  # fmt: skip
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self.ids, pl_module.drawn = [], 0.0


class Until(Callback):
    """Ends a run after a step; its learning rates are still those of the whole run."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        trainer.should_stop = trainer.should_stop or trainer.global_step >= self.step


def moments(optimizer: Any) -> list[torch.Tensor]:
    return [state[key] for state in optimizer.state.values() for key in sorted(state)]


def checksum(tensors: Any) -> str:
    """Equal for tensors of the same bits alone."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(local_part(tensor).detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def read(path: Path) -> dict[int, dict[str, Any]]:
    return {line["step"]: line for line in map(json.loads, path.read_text().splitlines())}


def travel(
    model: Path,
    prepared: Path,
    out: Path,
    world: int,
    steps: int,
    kind: str = "sharded",
    precision: str = "16-mixed",
    ckpt_path: Path | None = None,
    num_workers: int = 0,
    strategy: Any = None,
    saves: tuple[ModelCheckpoint, ...] = (),
    callbacks: tuple[Callback, ...] = (),
    validations: int = 1,
    until: int | None = None,
) -> tuple[dict[int, dict[str, Any]], list[int]]:
    """Train for so many steps of four clips each, or until one; the journal, and the clips decoded for training."""
    out.mkdir(parents=True, exist_ok=True)
    seed_everything(0 if ckpt_path is None else 1)
    module = Traveller(
        model, embedder=None, num_validation_answers=0, lr_language=1e-2, lr_vision=1e-2, lr_projector=1e-2,
        warmup_ratio=0.2,
    )  # fmt: skip
    batch_size = 1 if world > 1 else 2
    data = CrashDataModule(folder=prepared, num_frames=2, batch_size=batch_size, num_workers=num_workers)
    data.connect(module.inputs)
    fsdp = strategy is None
    trainer = Trainer(
        accelerator="cpu",
        devices=world,
        strategy=FSDPStrategy(state_dict_type=kind) if fsdp else strategy,
        precision=None if fsdp else "32-true",
        plugins=[WholeCheckpoints(), *([precision_plugin(precision, init_scale=2.0**8, growth_interval=5)] * fsdp)],
        max_epochs=20,
        max_steps=steps,
        accumulate_grad_batches=GLOBAL_BATCH // (world * batch_size),
        gradient_clip_val=1.0,
        callbacks=[Journal(out / "journal"), *([Until(until)] if until else []), *callbacks, *saves],
        limit_val_batches=validations,
        logger=False,
        enable_checkpointing=bool(saves),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    journal = out / f"journal{trainer.global_rank}"
    next(c for c in trainer.callbacks if isinstance(c, Journal)).path = journal
    with watched_decoding(data) as decoded:
        trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
    return read(journal), decoded


@contextmanager
def watched_decoding(data: CrashDataModule) -> Iterator[list[int]]:
    """The training clips that are decoded; the same clip is decoded once for all runs of this process."""
    decoded: list[int] = []
    plain = ClipDataset.__getitem__

    def watched(self: ClipDataset, index: int) -> Any:
        if self.samples == data.samples["train"]:
            decoded.append(index)
        key = (str(self.samples[index if index >= 0 else ~index].path), index < 0)
        if key not in _ITEMS:
            _ITEMS[key] = plain(self, index)
        return _ITEMS[key]

    ClipDataset.__getitem__ = watched  # type: ignore[method-assign]
    try:
        yield decoded
    finally:
        ClipDataset.__getitem__ = plain  # type: ignore[method-assign]
