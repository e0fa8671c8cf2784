"""What a cosine and the role check make of texts whose roles are swapped by rule: who hit whom, the side, the end.

Enters: a number of the demo's scenes; texts of other wording with their swaps and paraphrases. Leaves: a Result. Each
of the demo's texts is held against its own counterfactual; one that is held against itself has 1 of both.
"""

import argparse
import csv
from pathlib import Path

from benches.common import Result, Row, Table
from vlm_crash.demo.scene import sample_scene
from vlm_crash.evaluation.role_scores import counterfactual_figures
from vlm_crash.metrics.calibration import exact_interval
from vlm_crash.metrics.roles import compare_roles, roles_verdict
from vlm_crash.metrics.text_similarity import SentenceEmbedder
from vlm_crash.schema.fields import load_schema
from vlm_crash.schema.mirror import Mirror

PAIRS = Path("tests/metrics/role_pairs.tsv")
KINDS = {"who": "who did it", "side": "left and right", "end": "front and rear", "party": "the kind of road user"}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pairs", type=Path, default=PAIRS, help="texts with swaps and paraphrases (TSV)")
    parser.add_argument("--scenes", type=int, default=400, help="scenes of the demo whose texts are taken")


def run(options: argparse.Namespace) -> list[Result]:
    schema = load_schema()
    texts = []
    for seed in range(options.scenes):
        scene = sample_scene(seed)
        fields = schema.event(scene.event).fields
        texts += [scene.values[field.name] for field in fields if field.kind == "text" and field.name in scene.values]
    texts = sorted(set(texts))
    figures = counterfactual_figures(texts, schema.mirror, SentenceEmbedder())
    rows: list[Row] = [
        [KINDS[kind], one["n"], one["cosine"], one["told"], one["right"]] for kind, one in figures.items()
    ]
    columns = ["swapped", "texts", "mean cosine", "that tell a role", "called right"]
    title = f"Texts with swapped roles: {len(texts)} different texts of {options.scenes} of the demo's scenes"
    note = "An unchanged text has a cosine of 1 and is called right."
    ratios = {f"{kind}_called_right": float(one["right"]) for kind, one in figures.items() if one["told"]}
    ratios |= {f"{kind}_cosine": float(one["cosine"]) for kind, one in figures.items()}
    pairs = pairs_table(options.pairs, schema.mirror)
    return [Result("roles", [Table(title, note, columns, rows), pairs], ratios)]


def pairs_table(path: Path, mirror: Mirror | None) -> Table:
    """Of each half of a file of texts: swaps that are noticed, and paraphrases that are called swapped."""
    with path.open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file, delimiter="\t"))
    rows: list[Row] = []
    for half in ("first", "held"):
        for kind, name in {"": "all", **KINDS}.items():
            here = [one for one in found if one["half"] == half and kind in ("", one["kind"])]
            swaps, same = (
                [roles_verdict(compare_roles(one["text"], one[other], mirror)) for one in here]
                for other in ("swapped", "paraphrase")
            )
            noticed, alarms = swaps.count("swapped"), same.count("swapped")
            rows.append([half, name, len(here), _of(noticed, len(here)), swaps.count("same"), _of(alarms, len(here))])
    columns = ["half", "swapped", "texts", "swaps noticed", "swaps called right", "paraphrases called swapped"]
    note = (
        "With exact 95 % intervals. The words were extended by what was missed in the first half; the other was held."
    )
    return Table("Texts of other wording, each with its swap and a paraphrase", note, columns, rows)


def _of(count: int, n: int) -> str:
    low, high = exact_interval(count, n)
    return f"{count} ({100 * low:.0f} to {100 * high:.0f} %)"
