"""What the overflow sentinel costs a training step: off and on in turns, step by step of one run.

Enters: the demo's model and random clips. Leaves: a Result. One process; under FSDPStrategy in fp16, where the sentinel
asks the loss scaler, and in fp32 without it, where it goes over the gradients itself.
"""

import argparse
import logging
import os
import statistics
import time
import warnings
from typing import Any

import torch
from lightning import Trainer
from torch.utils.data import DataLoader

from benches.common import Result, Row, Table
from benches.model import TINY
from vlm_crash.callbacks import OverflowSentinel
from vlm_crash.data.collate import Collator, Item
from vlm_crash.lightning_module import CrashVLM
from vlm_crash.models.folder import image_size, tokens_per_frame
from vlm_crash.parallel import FSDPPrecision, FSDPStrategy
from vlm_crash.schema.records import VideoSample

LABELS, TEXT = 100, 60


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, default=40, help="steps of each precision that are counted")
    parser.add_argument("--frames", type=int, default=2, help="frames of a clip; two clips a step")


class InTurns(OverflowSentinel):
    """On in every other step; the seconds of each step, without the time between steps."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[bool, list[float]] = {False: [], True: []}
        self._is_on, self._start = False, 0.0

    def on_train_batch_start(self, *args: Any) -> None:
        self._start = time.perf_counter()
        if self._is_on:
            super().on_train_batch_start(*args)

    def on_before_optimizer_step(self, *args: Any) -> None:
        if self._is_on:
            super().on_before_optimizer_step(*args)

    def on_train_batch_end(self, *args: Any) -> None:
        if self._is_on:
            super().on_train_batch_end(*args)
        self.seconds[self._is_on].append(time.perf_counter() - self._start)
        self._is_on = not self._is_on


def run(options: argparse.Namespace) -> list[Result]:
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    rows: list[Row] = []
    ratios = {}
    for name in ("32-true", "16-mixed"):
        off, on, counted = _seconds(name, options)
        rows.append([name, 1000 * off, 1000 * on, on / off, counted])
        ratios[f"on_over_off_{name}"] = on / off
    table = Table(
        "The overflow sentinel",
        f"A training step of the demo's model, two clips of {options.frames} frames, off and on in turns "
        "(medians); 16-mixed under FSDPStrategy, 32-true without. Here 1 is best.",
        ["precision", "off (ms)", "on (ms)", "on / off", "steps each"],
        rows,
    )
    return [Result("sentinel", [table], ratios, ["several processes", "GPUs"])]


def _seconds(precision: str, options: argparse.Namespace) -> tuple[float, float, int]:
    """Medians of a step, off and on, and how many of each were counted."""
    torch.manual_seed(0)
    sentinel = InTurns()
    is_half = precision == "16-mixed"
    module = CrashVLM(TINY, embedder=None, num_validation_answers=0)
    warm_up = 6
    if is_half:
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        strategy=FSDPStrategy() if is_half else "auto",
        plugins=[FSDPPrecision("16-mixed", init_scale=2.0**10)] if is_half else None,
        max_steps=options.steps + warm_up,
        callbacks=[sentinel],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    items = [_item(module, options.frames, index) for index in range(4)]
    trainer.fit(module, DataLoader(items, batch_size=2, collate_fn=Collator(0)))  # type: ignore[arg-type]
    off, on = (sentinel.seconds[is_on][warm_up // 2 :] for is_on in (False, True))
    assert trainer.global_step == options.steps + warm_up, "a step was not finite"
    return statistics.median(off), statistics.median(on), min(len(off), len(on))


def _item(module: CrashVLM, num_frames: int, index: int) -> Item:
    """A clip of random pixels, a prompt and an answer of random words."""
    config = module.model.config
    num_images = num_frames * tokens_per_frame(config)
    ids = torch.randint(6, 300, (num_images + TEXT + LABELS,))
    ids[:num_images] = config.image_token_id
    labels = torch.full_like(ids, -100)
    labels[-LABELS:] = ids[-LABELS:]
    sample = VideoSample(str(index), f"{index}.mp4", TINY / f"{index}.mp4", "crash", None, None)
    return Item(sample, ids, labels, torch.randn(num_frames, 3, *image_size(config)))
