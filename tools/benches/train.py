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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from transformers.utils.logging import set_verbosity_error

from benches.common import Bar, Result, Row, Table
from benches.model import TINY
from benches.training_clips import make_items
from benches.training_ways import Run, Way, run_ours, run_trainer
from vlm_crash.data.collate import Item
from vlm_crash.lightning_module import CrashVLM
from vlm_crash.models.folder import read_config

MIB = 2**20
#: The bar, of a model whose vocabulary is as large as InternVL2.5-1B's.
FASTER, SMALLER, BAR_VOCABULARY = 1.5, 0.7, 151_000
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
    parser.add_argument("--rounds", type=int, default=2, help="rounds in which all ways take turns")


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
    like_them = [Way("padded", way.batch_size) for way in tried]  # as many clips a step
    kept = list(dict.fromkeys([*like_them, *plain]))

    runs: dict[Way, list[Run]] = {}
    _in_turns(runs, [*kept, *tried], ours, theirs, options.rounds)
    speed = partial(_speed, runs)
    best = max(tried, key=speed)  # by the medians of all rounds
    same = Way("padded", best.batch_size)
    best_again = replace(best, checkpointing=True)
    _in_turns(runs, [*again, best_again], ours, theirs, options.rounds)
    _in_turns(runs, others, ours, theirs, 1)
    ours_best, ours_again = (max(ways, key=speed) for ways in (kept, again))
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
            [*kept, *again, *others],
        ),
        table(
            "Training with transformers' Trainer",
            "The same weights, clips in memory, kernel, dtype, optimizer, clipping and checkpointing; its own loop, "
            "loss and group_by_length, with each batch size that was tried; checkpointing with the fastest of them, by "
            f"the medians of {options.rounds} round{'s' if options.rounds > 1 else ''} in which all ways took turns.",
            [*tried, best_again],
        ),
    ]
    ratios = _ratios(speed, peaks, (ours_best, best), same, (ours_again, best_again), plain, others)
    shares = [(way, speed(way) / speed(best), peaks[way] / peaks[best]) for way in kept]
    return Result(
        "train", tables, ratios, ["training on a GPU"], [_bar(shares)] if options.vocabulary >= BAR_VOCABULARY else []
    )


def _ratios(
    speed: Callable[[Way], float], peaks: Mapping[Way, int], fastest: tuple[Way, Way], same: Way,
    checkpointed: tuple[Way, Way], plain: Sequence[Way], others: Sequence[Way],
) -> dict[str, float]:  # fmt: skip
    """Ours beside Trainer's, and ways of ours beside each other."""
    (ours_best, best), (ours_again, best_again) = fastest, checkpointed
    smallest = min((way for way in peaks if way.name == "Trainer" and not way.checkpointing), key=peaks.__getitem__)
    return {
        "clips_per_s_vs_trainer": speed(ours_best) / speed(best),
        "peak_share_of_trainer": peaks[ours_best] / peaks[best],
        "clips_per_s_vs_trainer_at_its_batch_size": speed(same) / speed(best),
        "peak_share_of_trainer_at_its_batch_size": peaks[same] / peaks[best],
        "peak_share_of_trainer_at_its_smallest": peaks[ours_best] / peaks[smallest],
        "checkpointed_clips_per_s_vs_trainer": speed(ours_again) / speed(best_again),
        "checkpointed_peak_share_of_trainer": peaks[ours_again] / peaks[best_again],
        "labels_vs_all_places": speed(plain[1]) / speed(others[0]),
        "grouped_vs_padded": speed(plain[1]) / speed(plain[0]),
        "packed_vs_padded": speed(plain[2]) / speed(plain[0]),
        "by_clips_vs_one_mask_peak": peaks[others[1]] / peaks[plain[2]],
    }


def _in_turns(runs: dict[Way, list[Run]], ways: Sequence[Way], ours: Runner, theirs: Runner, rounds: int) -> None:
    """Every way once a round, so that what else the machine does meets all."""
    for _ in range(rounds):
        for way in ways:
            runs.setdefault(way, []).append((theirs if way.name == "Trainer" else ours)(way, False))


def _bar(shares: Sequence[tuple[Way, float, float]]) -> Bar:
    """Met where one way of ours has both: clips/s, and peak, as shares of Trainer's at the batch size best for it."""

    def listed(is_met: bool) -> str:
        found = [
            f"{way.name} of {way.batch_size} ({speed:.2f}, {peak:.3f})"
            for way, speed, peak in shares
            if (speed >= FASTER and peak <= SMALLER) == is_met
        ]
        return ", ".join(found) or "none"

    return Bar(
        f"one way that is at least {FASTER} times as fast as Trainer with the batch size best for it, and has at most "
        f"{SMALLER} of its peak above the model (clips/s, peak; of so many clips). Both: {listed(True)}; not both: "
        f"{listed(False)}",
        any(speed >= FASTER and peak <= SMALLER for _, speed, peak in shares),
    )


def _lengths(items: Sequence[Item]) -> list[int]:
    return [len(item.input_ids_S) for item in items]


def _speed(runs: Mapping[Way, Sequence[Run]], way: Way) -> float:
    return _clips_per_s(runs[way])


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
