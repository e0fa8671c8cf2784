"""Training over a dataset of which a clip cannot be read, on any number of processes."""

from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer

from tests.parallel.micro import Micro, Record
from tests.parallel.place import WORLD
from vlm_crash.callbacks import LeftOutClips
from vlm_crash.data.datamodule import CrashDataModule
from vlm_crash.parallel import FSDPStrategy


class Moved(Callback):
    """Whether each batch moved a weight."""

    def __init__(self) -> None:
        self.moved: dict[str, bool] = {}
        self._before: list[torch.Tensor] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self._before = [parameter.detach().clone() for parameter in pl_module.parameters()]

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        after = list(pl_module.parameters())
        clips = " ".join(sample.id for sample in batch.samples)
        self.moved[clips] = any(not torch.equal(x, y) for x, y in zip(self._before, after, strict=True))


def train_over(
    model: str | Path,
    dataset: str | Path,
    num_processes: int,
    batch_size: int,
    strategy: Any = "auto",
    ckpt_path: Path | None = None,
    saves: tuple[Callback, ...] = (),
    **options: Any,
) -> dict[str, Any]:
    """Two epochs, what they came to, and what was left out."""
    data = CrashDataModule(
        folder=Path(dataset),
        num_frames=2,
        batch_size=batch_size,
        **{"on_bad_clip": "skip", "num_workers": 1, **options},
    )
    module = Micro(Path(model))
    data.connect(module.inputs)
    module.conversation = data.recipe.tokenizer  # type: ignore[union-attr]
    record, moved, left_out = Record(), Moved(), LeftOutClips()
    trainer = Trainer(
        accelerator="cpu",
        devices=num_processes,
        strategy=strategy,
        max_epochs=2,
        limit_val_batches=0,
        callbacks=[record, left_out] if num_processes > 1 else [record, moved, left_out, *saves],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=bool(saves),
    )
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=False)
    return {
        "losses": record.losses, "norms": record.norms, "left_out": left_out.left_out, "steps": trainer.global_step,
        "flags": data.left_out.tolist() if data.left_out is not None else None, "moved": moved.moved,
        "ids": [sample.id for sample in data.samples["train"]],
    }  # fmt: skip


def left_out(model: str, dataset: str) -> dict[str, Any]:
    """On each process of a sharded run."""
    return train_over(model, dataset, WORLD, 1, FSDPStrategy())
