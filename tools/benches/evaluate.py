"""`evaluate` of a whole dataset: texts embedded pair by pair as the old scripts did, batched, and as ours does it.

Enters: a number of clips. Leaves: a Result. The answers are generated: every free text of every clip is another one, so
that nothing is gained by equal texts but what equal terms (Guilty: Yes) give. The model is the real all-MiniLM-L6-v2.
"""

import argparse
import csv
import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benches.common import Bar, Result, Table, side_by_side
from vlm_crash.evaluation import evaluate as evaluation
from vlm_crash.evaluation.legacy_rules import is_known, legacy_value
from vlm_crash.evaluation.settings import EvaluationSettings
from vlm_crash.metrics.text_similarity import SentenceEmbedder
from vlm_crash.schema.fields import Field, load_schema

FASTER = 20  # times, than pair by pair
SECONDS = 60  # of the whole command
SAME = 1e-4  # of a cosine
# What `evaluate` does, in its order: names in vlm_crash.evaluation.evaluate.
STAGES = {
    "load_predictions": "predictions read",
    "load_truth": "truth read",
    "score_clips": "answers parsed and judged, texts of the text fields embedded",
    "summarise": "bootstrap and counts",
    "metadata_answers": "baseline of metadata, fitted",
    "add_baselines": "intervals of baselines",
    "check_roles": "roles in texts",
    "add_roles": "intervals of roles",
    "add_calibration": "calibration",
    "add_legacy_scores": "the old rules, their texts embedded",
    "consistency": "rules between fields",
    "_write": "files written",
}
# Free texts are as long as those of the old scripts' files: "Driver drifted out of lane", "Camera shakes after impact".
_WORDS = (
    ("", "Red", "White", "Dark", "Oncoming", "Parked", "Slow", "Second", "Small", "Loaded"),
    ("car", "van", "truck", "bus", "motorcycle", "taxi", "pickup", "trailer", "scooter", "tractor", "sedan", "cyclist"),
    ("braked hard", "changed lanes", "turned left", "turned right", "stopped", "pulled out", "drifted", "sped up",
     "reversed", "cut in", "swerved", "slowed down", "ran the light", "crossed over", "rolled on", "merged late"),
    ("", "at the crossing", "behind the bus stop", "near the school", "on the bridge", "before the bend", "too late",
     "in the tunnel", "on the wet road", "by the exit", "along the barrier", "in front of us", "on the left",
     "on the right", "past the gate", "between two lanes", "at the signal"),
)  # fmt: skip


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--crashes", type=int, default=1040, help="clips of a crash")
    parser.add_argument("--nearmisses", type=int, default=602, help="clips of a near miss")
    parser.add_argument("--pairs", type=int, default=250, help="pairs that are compared the old way (scaled to all)")
    parser.add_argument("--draws", type=int, default=2000, help="of the bootstrap")
    parser.add_argument("--rounds", type=int, default=2, help="most rounds of the ways in turns")
    parser.add_argument("--limit", type=float, default=60, help="seconds after which no further round begins")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--seed", type=int, default=0, help="of the generated answers")


def run(options: argparse.Namespace) -> list[Result]:
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        made = write_workload(Path(folder), options.crashes, options.nearmisses, options.seed)
        ways = _ways(made, options)
        stages = _stages(made, options)
        whole_s = _whole(made, options)
    return [_result(options, made, ways, stages, whole_s)]


@dataclass(frozen=True)
class Workload:
    """Files as `evaluate` takes them, and the pairs of texts that the old rules compare."""

    predictions: Path
    truth: list[Path]
    pairs: list[tuple[str, str]]
    num_texts: int  # free texts, all different


def write_workload(folder: Path, crashes: int, nearmisses: int, seed: int) -> Workload:
    """Truth as CSVs in the old form and answers as predictions.jsonl; seven of ten terms are right.

    Answers name fields as the columns do: so the old rules find all that they compare, and ours does too.
    """
    schema, rng = load_schema(), random.Random(seed)
    sentences = [" ".join(filter(None, words)).capitalize() for words in itertools.product(*_WORDS)]
    rng.shuffle(sentences)
    texts = iter(sentences)
    pairs, truth, num_texts = [], [], 0
    predictions = folder / "predictions.jsonl"
    with predictions.open("w", encoding="utf-8") as lines:
        for event, number in (("crash", crashes), ("nearmiss", nearmisses)):
            fields = schema.event(event).fields
            truth.append(folder / f"AV_{event}_modified_r.csv")
            with truth[-1].open("w", newline="", encoding="utf-8") as file:
                table = csv.writer(file)
                table.writerow(field.columns[0] for field in fields)
                for clip in range(1, number + 1):
                    true = {field.name: _value(field, texts, rng) for field in fields}
                    said = {
                        f.name: true[f.name] if f.kind != "text" and rng.random() < 0.7 else _value(f, texts, rng)
                        for f in fields
                    }
                    table.writerow(true.values())
                    response = "\n".join([schema.event(event).opening, *(f"- {k}: {v}" for k, v in said.items())])
                    lines.write(json.dumps(_line(event, clip, said, response, rng)) + "\n")
                    pairs += _old_pairs(event, fields, true, response)
                    num_texts += 2 * sum(field.kind == "text" for field in fields)
    return Workload(predictions, truth, pairs, num_texts)


def _value(field: Field, texts: Iterator[str], rng: random.Random) -> str:
    if field.kind == "text":
        return next(texts)
    if field.kind == "count":
        return str(rng.randint(1, 4))
    return rng.choice(field.vocabulary or tuple(dict.fromkeys(field.wordings.values())))


def _line(event: str, clip: int, said: dict[str, str], response: str, rng: random.Random) -> dict[str, Any]:
    return {
        "video": f"{clip}.mp4", "event": event, "event_probability": round(rng.random(), 4), "fields": said,
        "field_probabilities": {}, "response": response, "status": "ok", "error": None, "seconds": 1.0,
        "provenance": "bench", "source_event": event,
    }  # fmt: skip


def _old_pairs(event: str, fields: tuple[Field, ...], true: dict[str, str], response: str) -> list[tuple[str, str]]:
    """What the old scripts compare by cosine: terms of closed fields (Guilty) too."""
    names = [f.name for f in fields if f.old_metric == "cosine_similarity" and is_known(event, f.name)]
    found = [(legacy_value(response, event, name), true[name]) for name in names]
    return [pair for pair in found if all(pair)]


@dataclass(frozen=True)
class _Ways:
    """Seconds: of the old way for the pairs tried and, batched, for the texts of `batched_pairs`; of ours for all."""

    pair_by_pair_s: float
    one_by_one_s: float
    num_tried: int
    batched_s: float
    num_batched: int
    ours_s: float
    num_distinct: int
    largest_difference: float
    rounds: int


def _ways(made: Workload, options: argparse.Namespace) -> _Ways:
    from sentence_transformers import SentenceTransformer
    from sklearn.metrics.pairwise import cosine_similarity

    rng = random.Random(options.seed)
    tried = rng.sample(made.pairs, min(options.pairs, len(made.pairs)))
    batched = rng.sample(made.pairs, min(8 * options.pairs, len(made.pairs)))
    warm = SentenceEmbedder()
    warm.load()
    model = SentenceTransformer(warm.source(), device="cpu", local_files_only=True)  # as the scripts had it
    found: dict[str, list[float]] = {}

    def pair_by_pair() -> None:
        """As the scripts did: a call for the two texts of a pair, and scikit-learn's cosine."""
        vectors = [model.encode(list(pair), show_progress_bar=False) for pair in tried]
        found["old"] = [float(cosine_similarity([one[0]], [one[1]])[0][0]) for one in vectors]

    def one_by_one() -> None:
        """A call for each text: what "pair by pair" is without the scripts' list of two."""
        for pair in tried:
            left, right = (model.encode(text, show_progress_bar=False) for text in pair)
            cosine_similarity([left], [right])

    def in_batches() -> None:
        """The scripts' pairs at once, in the library's own batches; equal texts as often as they come."""
        model.encode([text for pair in batched for text in pair], show_progress_bar=False)

    def ours() -> None:
        embedder = warm.emptied()
        embedder.embed([text for pair in made.pairs for text in pair])
        found["ours"] = embedder.cosine([a for a, _ in tried], [b for _, b in tried]).tolist()
        embedder.cosine([a for a, _ in made.pairs], [b for _, b in made.pairs])

    pair_by_pair()
    ways = [pair_by_pair, one_by_one, in_batches, ours]
    (pairs_s, single_s, batched_s, ours_s), rounds = side_by_side(ways, options.rounds, options.limit)
    difference = max(abs(a - b) for a, b in zip(found["old"], found["ours"], strict=True))
    distinct = {text for pair in made.pairs for text in pair}
    return _Ways(pairs_s, single_s, len(tried), batched_s, len(batched), ours_s, len(distinct), difference, rounds)


def _stages(made: Workload, options: argparse.Namespace) -> dict[str, float]:
    """Seconds of each stage, of embedding within them, and of loading the model; in this process, imports done."""
    seconds: dict[str, float] = dict.fromkeys([*STAGES, "load", "embed"], 0.0)

    def timing(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **more: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **more)
            finally:
                seconds[name] += time.perf_counter() - start

        return timed

    places: list[tuple[Any, str, str]] = [(evaluation, name, name) for name in STAGES]
    places += [(SentenceEmbedder, "load", "load"), (SentenceEmbedder, "embed", "embed")]
    kept = [getattr(place, attribute) for place, attribute, _ in places]
    for place, attribute, name in places:
        setattr(place, attribute, timing(name, getattr(place, attribute)))
    try:
        with tempfile.TemporaryDirectory() as out:
            settings = EvaluationSettings(num_draws=options.draws)
            evaluation.evaluate([made.predictions], made.truth, Path(out), settings=settings)
    finally:
        for (place, attribute, _), function in zip(places, kept, strict=True):
            setattr(place, attribute, function)
    seconds["embed"] -= seconds["load"]
    return seconds


def _whole(made: Workload, options: argparse.Namespace) -> float:
    """Seconds of the command in a process of its own, Python's start and all imports included."""
    words = [sys.executable, "-m", "vlm_crash", "evaluate", "--predictions", str(made.predictions), "--truth"]
    words += [*map(str, made.truth), "--num_draws", str(options.draws), "--out"]
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        subprocess.run([*words, out], check=True, capture_output=True)
        return time.perf_counter() - start


def _result(
    options: argparse.Namespace, made: Workload, ways: _Ways, stages: dict[str, float], whole_s: float
) -> Result:
    num_pairs, rounds = len(made.pairs), ways.rounds
    old_s = ways.pair_by_pair_s / ways.num_tried * num_pairs
    single_s = ways.one_by_one_s / ways.num_tried * num_pairs
    batched_s = ways.batched_s / ways.num_batched * num_pairs
    ratios = {"pair_by_pair_vs_ours": old_s / ways.ours_s, "one_by_one_vs_ours": single_s / ways.ours_s,
              "batched_vs_ours": batched_s / ways.ours_s}  # fmt: skip
    clips = options.crashes + options.nearmisses
    workload = (
        f"{clips:,} generated clips ({options.crashes:,} crashes of 19 fields, {options.nearmisses:,} near misses "
        f"of 9), {made.num_texts:,} free texts, no two alike; real all-MiniLM-L6-v2 in fp32, {options.threads} threads"
    )
    texts = Table(
        "The texts of an evaluation",
        f"{workload}. The {num_pairs:,} pairs that the old rules compare by cosine. Pair by pair: {ways.num_tried} of "
        f"them, drawn at random, scaled; batched: {ways.num_batched:,} of them, scaled; ours: all. Medians of rounds "
        f"in turns. The model is loaded, and warm, in all three. Largest difference of a cosine: "
        f"{ways.largest_difference:.1e}.",
        ("way", "texts embedded", "per pair (ms)", "all pairs (s)", "pair by pair / it", "rounds"),
        [
            ("old: a call for each pair", 2 * num_pairs, *_row(old_s, num_pairs), 1.0, rounds),
            ("the same, a call for each text", 2 * num_pairs, *_row(single_s, num_pairs), old_s / single_s, rounds),
            ("old, in batches of 32", 2 * num_pairs, *_row(batched_s, num_pairs), old_s / batched_s, rounds),
            ("ours: each distinct text once", ways.num_distinct, *_row(ways.ours_s, num_pairs),
             old_s / ways.ours_s, rounds),
        ],
    )  # fmt: skip
    inside = Table(
        "Where `evaluate` spends its time",
        f"{workload}; {options.draws:,} draws. Embedding is within the stages above it; the bootstrap's texts are "
        "embedded by then.",
        ("stage", "seconds (s)"),
        [*((what, stages[name]) for name, what in STAGES.items()),
         ("of these: the model loaded", stages["load"]), ("of these: texts embedded", stages["embed"]),
         ("the whole command, a process of its own", whole_s)],
    )  # fmt: skip
    bars = [
        Bar(f"{ratios['pair_by_pair_vs_ours']:.1f} times as fast as pair by pair; at least {FASTER} are asked for",
            ratios["pair_by_pair_vs_ours"] >= FASTER),
        Bar(f"the whole command takes {whole_s:.0f} s; under {SECONDS} are asked for", whole_s < SECONDS),
        Bar(f"cosines differ by {ways.largest_difference:.1e} at most; {SAME:g} is allowed",
            ways.largest_difference <= SAME),
    ]  # fmt: skip
    return Result("evaluate", [texts, inside], ratios, bars=bars)


def _row(seconds: float, num_pairs: int) -> tuple[float, float]:
    return 1000 * seconds / num_pairs, seconds
