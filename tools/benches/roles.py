"""What a cosine and the role check make of texts whose roles are swapped by rule: who hit whom, the side, the end.

Enters: a number of the demo's scenes. Leaves: a Result. Each text is held against its own counterfactual; one that is
held against itself has 1 of both.
"""

import argparse

from benches.common import Result, Table
from vlm_crash.demo.scene import sample_scene
from vlm_crash.evaluation.role_scores import counterfactual_figures
from vlm_crash.metrics.text_similarity import SentenceEmbedder
from vlm_crash.schema.fields import load_schema

KINDS = {"who": "who did it", "side": "left and right", "end": "front and rear", "party": "the kind of road user"}


def add_options(parser: argparse.ArgumentParser) -> None:
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
    rows: list[list[str | float | int | None]] = [
        [KINDS[kind], one["n"], one["cosine"], one["told"], one["right"]] for kind, one in figures.items()
    ]
    columns = ["swapped", "texts", "mean cosine", "that tell a role", "called right"]
    title = f"Texts with swapped roles: {len(texts)} different texts of {options.scenes} of the demo's scenes"
    note = "An unchanged text has a cosine of 1 and is called right."
    ratios = {f"{kind}_called_right": float(one["right"]) for kind, one in figures.items() if one["told"]}
    ratios |= {f"{kind}_cosine": float(one["cosine"]) for kind, one in figures.items()}
    return [Result("roles", [Table(title, note, columns, rows)], ratios)]
