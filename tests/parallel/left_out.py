"""Training over a dataset of which a clip cannot be read, on any number of processes."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.parallel.micro import Micro, Record
from tests.parallel.place import RANK, WORLD
from vlm_crash.callbacks import LeftOutClips
from vlm_crash.callbacks.left_out import KEY
from vlm_crash.cli.checkpoints import read_checkpoint
from vlm_crash.data.datamodule import CrashDataModule
from vlm_crash.parallel import FSDPStrategy
from vlm_crash.video.frame_cache import CacheSettings

#: With it the bad clip's turn comes early in the first epoch, and not on the process that writes checkpoints.
SEED = 1


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
        callbacks=[record, *([] if num_processes > 1 else [moved]), left_out, *saves],
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


def left_out(model: str, dataset: str, folder: str) -> dict[str, Any]:
    """On each process of a sharded run; and of one that goes on where the bad clip's turn was over."""
    save = ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)
    found = train_over(model, dataset, WORLD, 1, FSDPStrategy(), saves=(save,), seed=SEED)
    saved = [Path(folder) / f"step={step}.ckpt" for step in range(1, 6)]
    told = [read_checkpoint(path).rest[KEY] for path in saved]
    turn = next(step for step, clips in enumerate(told) if clips)
    rest = train_over(model, dataset, WORLD, 1, FSDPStrategy(), saved[turn], num_workers=0, seed=SEED)
    return {**found, "told": told, "turn": turn, "rest": rest, "room": room(model, dataset, folder)}


def room(model: str, dataset: str, folder: str) -> dict[str, str | None]:
    """What a process says of the room for its cache: of a folder that all share, and of a machine's own."""

    def said(roomy: bool) -> str | None:
        trainer = Trainer(
            accelerator="cpu", devices=WORLD, strategy=FSDPStrategy(), logger=False, enable_checkpointing=False
        )
        trainer.strategy.setup_environment()
        settings = CacheSettings(Path(folder) / "cache", format="raw", max_gib=1 if roomy else 1e-6)
        data = CrashDataModule(folder=Path(dataset), num_frames=2, cache=settings)
        data.trainer = trainer
        data.connect(Micro(Path(model)).inputs)
        try:
            data.setup("fit")
        except ValueError as error:
            return str(error)
        return None

    found = {"for all": said(True), "for none": said(False)}
    os.environ["LOCAL_RANK"] = "0"  # each is the first process of a machine of its own
    return {**found, "for the first": said(RANK == 0), "on both": said(True)}
