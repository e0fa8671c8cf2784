"""One epoch of training, by CrashVLM under Lightning's Trainer, and by transformers' Trainer.

Enters: a model folder, items in memory, a way. Leaves: a Run: seconds, bytes, tokens. Both sides have the same weights,
attention (SDPA's math kernel), dtype (fp32), optimizer (fused AdamW), clipping and checkpointing.
"""

# Suffixes: B batch, S sequence, V vocabulary.

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from torch import Tensor, nn
from transformers import Trainer as TheirTrainer
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from benches.memory import TensorBytes
from benches.training_clips import MemoryClips
from vlm_crash.callbacks import TrainingMonitor
from vlm_crash.data.collate import Batch, Collator, Item
from vlm_crash.data.tokenization import IGNORE_INDEX
from vlm_crash.lightning_module import CrashVLM
from vlm_crash.models.attention import set_attention
from vlm_crash.models.attention_by_clips import restarted_positions
from vlm_crash.models.cross_entropy import summed_cross_entropy
from vlm_crash.models.internvl import last_hidden, load_model
from vlm_crash.models.vision import embed_prompt

CLIP = 1.0
RATE = 1e-4


@dataclass(frozen=True)
class Way:
    """How an epoch is trained.

    Args:
        name: padded, grouped or packed; or Trainer, which groups.
        batch_size: clips of a batch; of a pack, how many times the longest clip fits.
        checkpointing: activations are computed again.
        loss_on: labels or all (places).
        one_mask: packed, with one mask over the row instead of attention clip by clip.
    """

    name: str
    batch_size: int
    checkpointing: bool = False
    loss_on: str = "labels"
    one_mask: bool = False


@dataclass
class Run:
    """What an epoch took: seconds, tokens and places (tokens with padding) of its batches, bytes.

    `peak` is above the model, whose parameters have `model` bytes; 0 where it was not counted.
    """

    seconds: float = 0.0
    peak: int = 0
    model: int = 0
    clips: int = 0
    tokens: int = 0
    places: int = 0
    steps: int = 0

    def see(self, batch: Batch) -> None:
        """Count a batch."""
        self.clips += len(batch.samples)
        self.tokens += batch.num_tokens
        self.places += batch.input_ids_BS.numel()
        self.steps += 1


class Variant(CrashVLM):
    """CrashVLM, where asked with logits at all places, or with one mask over a packed row."""

    way: Way

    def _loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        if self.way.loss_on == "labels" and not self.way.one_mask:
            return super()._loss(batch)
        assert batch.labels_BS is not None
        model, lengths = self.model, batch.clip_lengths
        embeds_BSD = embed_prompt(model, batch.input_ids_BS, batch.pixel_values_N3HW, clip_lengths=lengths)
        if self.way.one_mask and lengths:
            # transformers finds the clips by their positions, and makes the mask.
            positions = restarted_positions(lengths, embeds_BSD.device)
            language = model.model.language_model
            hidden_BSD = language(inputs_embeds=embeds_BSD, position_ids=positions, use_cache=False).last_hidden_state
        else:
            hidden_BSD = last_hidden(model, embeds_BSD, batch.attention_mask_BS, lengths)
        target_BS = batch.labels_BS[:, 1:]
        is_label_BS = target_BS != IGNORE_INDEX
        if self.way.loss_on == "labels":
            loss = summed_cross_entropy(model.lm_head(hidden_BSD[:, :-1][is_label_BS]), target_BS[is_label_BS])
        else:
            logits_BSV = model.lm_head(hidden_BSD[:, :-1])
            loss = nn.CrossEntropyLoss(reduction="sum")(logits_BSV.flatten(0, 1), target_BS.flatten())
        return loss, is_label_BS.sum()


class Watch(Callback):
    """Seconds from the first step to the last, and what was in the batches."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.run.seconds = -time.perf_counter()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        self.run.see(batch)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.run.seconds += time.perf_counter()


class TheirWatch(TrainerCallback):
    """The same in transformers' words."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.run.seconds = -time.perf_counter()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.run.seconds += time.perf_counter()


def run_ours(folder: Path, items: Sequence[Item], way: Way, counts_memory: bool = False) -> Run:
    """An epoch by CrashVLM, with what every `fit` logs of it."""
    torch.manual_seed(0)
    module = Variant(
        folder, init="random", embedder=None, num_validation_answers=0, activation_checkpointing=way.checkpointing,
        lr_vision=RATE, lr_projector=RATE, lr_language=RATE,
    )  # fmt: skip
    module.way = way
    data = MemoryClips(items, way.name, way.batch_size)
    data.connect(module.inputs)
    run = Run(model=_bytes(module))
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, gradient_clip_val=CLIP, callbacks=[Watch(run), TrainingMonitor()],
        logger=False, num_sanity_val_steps=0,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, limit_val_batches=0,
    )  # fmt: skip
    with TensorBytes() if counts_memory else nullcontext() as counted:
        trainer.fit(module, datamodule=data)
    run.peak = counted.peak if counted else 0
    return run


def run_trainer(folder: Path, items: Sequence[Item], way: Way, counts_memory: bool = False) -> Run:
    """An epoch by transformers' Trainer: its own loss, sampler and loop; for the memory two steps.

    Its sampler takes the longest clip first, and with the second step the optimizer has its state.
    """
    set_attention("math")
    torch.manual_seed(0)
    model = load_model(folder, "random").train()
    run = Run(model=_bytes(model))
    pad = Collator(0)

    def collate(found: list[dict[str, Any]]) -> dict[str, Tensor | None]:
        batch = pad([row["item"] for row in found])
        run.see(batch)
        assert batch.labels_BS is not None
        return {
            "input_ids": batch.input_ids_BS, "attention_mask": batch.attention_mask_BS, "labels": batch.labels_BS,
            "pixel_values": batch.pixel_values_N3HW,
        }  # fmt: skip

    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"), use_cpu=True, num_train_epochs=1, learning_rate=RATE,
        per_device_train_batch_size=way.batch_size, train_sampling_strategy="group_by_length", max_grad_norm=CLIP,
        optim="adamw_torch_fused", gradient_checkpointing=way.checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if way.checkpointing else None,
        remove_unused_columns=False, dataloader_pin_memory=False, save_strategy="no", logging_strategy="no",
        report_to="none", disable_tqdm=True, max_steps=2 if counts_memory else -1,
    )  # fmt: skip
    rows = [{"item": item, "input_ids": item.input_ids_S} for item in items]
    trainer = TheirTrainer(model, arguments, collate, rows, callbacks=[TheirWatch(run)])
    trainer.remove_callback(PrinterCallback)
    with TensorBytes() if counts_memory else nullcontext() as counted:
        trainer.train()
    run.peak = counted.peak if counted else 0
    return run


def _bytes(module: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in module.parameters())
