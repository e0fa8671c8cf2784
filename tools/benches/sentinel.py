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
from collections.abc import Mapping
from typing import Any

import torch
from lightning import Trainer
from torch.utils.data import DataLoader

from benches.common import Bar, Result, Row, Table
from benches.model import TINY
from vlm_crash.callbacks import OverflowSentinel
from vlm_crash.data.collate import Collator, Item
from vlm_crash.lightning_module import CrashVLM
from vlm_crash.models.folder import image_size, tokens_per_frame
from vlm_crash.parallel import FSDPPrecision, FSDPStrategy
from vlm_crash.schema.records import VideoSample

LABELS, TEXT = 100, 60
#: Of a step without it: it may cost 5 % more.
COSTS_AT_MOST = 1.05


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, default=40, help="steps that are counted; of several batches, half of it")
    parser.add_argument("--frames", type=int, default=2, help="frames of a clip; two clips a batch")
    parser.add_argument("--precisions", nargs="+", default=["32-true", "16-mixed"], choices=("32-true", "16-mixed"))
    parser.add_argument("--accumulate", type=int, nargs="+", default=[1, 2], help="batches of a step")


class InTurns(OverflowSentinel):
    """On in every other optimizer step; the seconds of each, without the time between batches."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[bool, list[float]] = {False: [], True: []}
        self.looks = 0
        self._is_on, self._start, self._spent = False, 0.0, 0.0

    def on_train_batch_start(self, *args: Any) -> None:
        self._start = time.perf_counter()
        if self._is_on:
            super().on_train_batch_start(*args)

    def on_before_optimizer_step(self, *args: Any) -> None:
        if self._is_on:
            super().on_before_optimizer_step(*args)
            self.looks += 1

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if self._is_on:
            super().on_train_batch_end(trainer, *args)
        self._spent += time.perf_counter() - self._start
        if not trainer.fit_loop._should_accumulate():
            self.seconds[self._is_on].append(self._spent)
            self._is_on, self._spent = not self._is_on, 0.0


def run(options: argparse.Namespace) -> list[Result]:
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    rows: list[Row] = []
    ratios = {}
    for batches in options.accumulate:
        for name in options.precisions:
            off, on, counted = _seconds(name, batches, options)
            rows.append([name, batches, 1000 * off, 1000 * on, on / off, counted])
            ratios[f"on_over_off_{name}" + (f"_of_{batches}_batches" if batches > 1 else "")] = on / off
    table = Table(
        "The overflow sentinel",
        f"An optimizer step of the demo's model, two clips of {options.frames} frames a batch, off and on in turns "
        "(medians); 16-mixed under FSDPStrategy, 32-true without. Here 1 is best.",
        ["precision", "batches a step", "off (ms)", "on (ms)", "on / off", "steps each"],
        rows,
    )
    return [Result("sentinel", [table], ratios, ["several processes", "GPUs"], [_bar(ratios)])]


def _bar(ratios: Mapping[str, float]) -> Bar:
    highest = max(ratios, key=ratios.__getitem__)
    what = f"on / off is below {COSTS_AT_MOST} in every row; the highest is {highest} with {ratios[highest]:.3f}"
    return Bar(what, ratios[highest] < COSTS_AT_MOST)


def _seconds(precision: str, accumulate: int, options: argparse.Namespace) -> tuple[float, float, int]:
    """Medians of an optimizer step, off and on, and how many of each were counted."""
    torch.manual_seed(0)
    sentinel = InTurns()
    is_half = precision == "16-mixed"
    module = CrashVLM(TINY, embedder=None, num_validation_answers=0)
    warm_up, steps = 6, options.steps // min(accumulate, 2)
    if is_half:
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        strategy=FSDPStrategy() if is_half else "auto",
        plugins=[FSDPPrecision("16-mixed", init_scale=2.0**10)] if is_half else None,
        max_steps=steps + warm_up,
        accumulate_grad_batches=accumulate,
        callbacks=[sentinel],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    items = [_item(module, options.frames, index) for index in range(4 * accumulate)]
    trainer.fit(module, DataLoader(items, batch_size=2, collate_fn=Collator(0)))  # type: ignore[arg-type]
    off, on = (sentinel.seconds[is_on][warm_up // 2 :] for is_on in (False, True))
    assert trainer.global_step == steps + warm_up, "a step was not finite"
    assert sentinel.looks == len(sentinel.seconds[True])
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
