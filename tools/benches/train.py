"""Training steps: padded, grouped and packed batches, loss on labels or on all places, beside transformers' Trainer.

Enters: nothing but options; weights and pixels are random. Leaves: a Result. Every way trains the same model from the
same weights over the same clips, which lie in memory, for an epoch: once for the time, once for the memory.
"""

import argparse
import logging
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from transformers.utils.logging import set_verbosity_error

from benches.common import Result, Row, Table
from benches.model import TINY
from benches.training_clips import make_items
from benches.training_ways import Run, Way, run_ours, run_trainer
from vlm_crash.data.collate import Item
from vlm_crash.lightning_module import CrashVLM
from vlm_crash.models.folder import read_config

MIB = 2**20
COLUMNS = (
    "batches", "clips a step", "activations", "loss on", "clips/s", "tokens/s", "padding (%)",
    "peak above the model (MiB)", "peak (MiB)",
)  # fmt: skip
Runner = Callable[[Way, bool], Run]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clips", type=int, default=12, help="clips of the epoch")
    parser.add_argument("--frames", type=int, nargs=2, default=[4, 16], help="fewest and most frames of a clip")
    parser.add_argument("--vocabulary", type=int, default=151_674, help="tokens of the model's vocabulary")
    parser.add_argument("--batch_size", type=int, default=2, help="clips of a batch of ours")
    parser.add_argument("--trainer_batch_sizes", type=int, nargs="+", default=[1, 2, 4], help="what Trainer tries")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of what is compared, in turns")


def run(options: argparse.Namespace) -> list[Result]:
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    set_verbosity_error()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_folder(folder, options.vocabulary)
        inputs = CrashVLM(folder, init="random", embedder=None).inputs
        items = make_items(inputs, options.clips, tuple(options.frames))
        for kind, batches in ((run_ours, "padded"), (run_trainer, "Trainer")):
            kind(folder, items[:2], Way(batches, 1))  # libraries and the allocator are warm
        ours, theirs = (partial(_run, kind, folder, items) for kind in (run_ours, run_trainer))
        return [_compare(ours, theirs, options, items)]


def _run(kind: Callable[..., Run], folder: Path, items: Sequence[Item], way: Way, counts_memory: bool) -> Run:
    start = time.perf_counter()
    found = kind(folder, items, way, counts_memory)
    what = f"peak {found.peak / MIB:,.0f} MiB" if counts_memory else f"{_clips_per_s([found]):.2f} clips/s"
    print(f"{time.perf_counter() - start:.0f} s for {way}: {what}", file=sys.stderr, flush=True)
    return found


def _write_folder(folder: Path, vocabulary: int) -> None:
    """The demo's model with a larger vocabulary: its shapes and its tokenizer, without weights."""
    config = read_config(TINY)
    config.text_config.vocab_size = vocabulary  # type: ignore[union-attr]
    config.save_pretrained(folder)
    for file in TINY.glob("tokenizer*"):
        shutil.copy(file, folder)


def _compare(ours: Runner, theirs: Runner, options: argparse.Namespace, items: Sequence[Item]) -> Result:
    size = options.batch_size
    plain = [Way(name, size) for name in ("padded", "grouped", "packed")]
    again = [replace(way, checkpointing=True) for way in plain]
    others = [Way("grouped", size, loss_on="all"), Way("packed", size, one_mask=True)]
    tried = [Way("Trainer", number, loss_on="all") for number in options.trainer_batch_sizes]

    runs = {way: [ours(way, False)] for way in (*plain, *again, *others)}
    runs |= {way: [theirs(way, False)] for way in tried}
    best = max(tried, key=lambda way: _clips_per_s(runs[way]))
    best_again = replace(best, checkpointing=True)
    runs[best_again] = [theirs(best_again, False)]
    ours_best, ours_again = (max(ways, key=lambda way: _clips_per_s(runs[way])) for ways in (plain, again))
    same = Way("padded", best.batch_size)  # as many clips a step as Trainer's best
    if same not in runs:
        runs[same] = [ours(same, False)]
    for _ in range(options.rounds - 1):
        for way, runner in ((ours_best, ours), (best, theirs), (same, ours), (ours_again, ours), (best_again, theirs)):
            runs[way].append(runner(way, False))
    peaks = {way: (theirs if way.name == "Trainer" else ours)(way, True).peak for way in runs}

    def table(title: str, what: str, ways: Sequence[Way]) -> Table:
        return Table(title, what, COLUMNS, [_row(way, runs[way], peaks[way]) for way in ways])

    num_labels = sum(int((item.labels_S != -100).sum()) for item in items if item.labels_S is not None)
    tables = [
        table(
            "Training with vlm_crash",
            f"CrashVLM's training step under Lightning's Trainer, {len(items)} clips of {options.frames[0]} to "
            f"{options.frames[1]} frames ({min(_lengths(items))} to {max(_lengths(items))} tokens, "
            f"{100 * num_labels / sum(_lengths(items)):.0f} % of them labels), once over; the demo's model with "
            f"{options.vocabulary:,} tokens of vocabulary, fp32, SDPA's math kernel, fused AdamW, gradients clipped; a "
            f"pack holds {size} times the longest clip. Peak: bytes of tensors, of gradients and AdamW's moments too.",
            [*dict.fromkeys([same, *plain]), *again, *others],
        ),
        table(
            "Training with transformers' Trainer",
            "The same weights, clips in memory, kernel, dtype, optimizer, clipping and checkpointing; its own loop, "
            "loss and group_by_length, with each batch size that was tried; checkpointing with the fastest of them.",
            [*tried, best_again],
        ),
    ]
    speed = {way: _clips_per_s(found) for way, found in runs.items()}
    smallest = min(tried, key=lambda way: peaks[way])
    ratios = {
        "clips_per_s_vs_trainer": speed[ours_best] / speed[best],
        "peak_share_of_trainer": peaks[ours_best] / peaks[best],
        "clips_per_s_vs_trainer_at_its_batch_size": speed[same] / speed[best],
        "peak_share_of_trainer_at_its_batch_size": peaks[same] / peaks[best],
        "peak_share_of_trainer_at_its_smallest": peaks[ours_best] / peaks[smallest],
        "checkpointed_clips_per_s_vs_trainer": speed[ours_again] / speed[best_again],
        "checkpointed_peak_share_of_trainer": peaks[ours_again] / peaks[best_again],
        "labels_vs_all_places": speed[plain[1]] / speed[others[0]],
        "grouped_vs_padded": speed[plain[1]] / speed[plain[0]],
        "packed_vs_padded": speed[plain[2]] / speed[plain[0]],
        "by_clips_vs_one_mask_peak": peaks[others[1]] / peaks[plain[2]],
    }
    return Result("train", tables, ratios, ["training on a GPU"])


def _lengths(items: Sequence[Item]) -> list[int]:
    return [len(item.input_ids_S) for item in items]


def _clips_per_s(runs: Sequence[Run]) -> float:
    return statistics.median(run.clips / run.seconds for run in runs)


def _row(way: Way, runs: Sequence[Run], peak: int) -> Row:
    first = runs[0]
    return [
        f"{way.name}, one mask" if way.one_mask else way.name,
        first.clips / first.steps,
        "recomputed" if way.checkpointing else "kept",
        way.loss_on,
        _clips_per_s(runs),
        statistics.median(run.tokens / run.seconds for run in runs),
        100 * (1 - first.tokens / first.places),
        peak / MIB,
        (peak + first.model) / MIB,
    ]
