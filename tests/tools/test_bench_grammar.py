"""tools/bench.py grammar: the form as others' grammars, and a small run beside the library that is in the lock."""

import json
import re
from pathlib import Path

import pytest
from bench import main
from benches.grammar_libraries import regex
from benches.model import TINY

from vlm_crash.demo.scene import sample_scene
from vlm_crash.lightning_module import CrashVLM
from vlm_crash.schema.records import Annotation
from vlm_crash.schema.response import render

COLUMNS = ["way", "seconds a clip", "passes a clip", "same fields", "once (s)", "rounds"]


def test_a_small_run(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    options = ["--clips", "1", "--rounds", "1", "--text_tokens", "4", "--libraries", "llguidance"]
    assert main(["grammar", *options, "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    (table,) = found["tables"]
    assert table["columns"] == COLUMNS
    ours, other = table["rows"]
    assert ours[3] == 1 and other[0] == "llguidance" and 0 < other[3] <= 1
    assert found["ratios"]["passes_llguidance_over_ours"] == pytest.approx(other[2] / ours[2])


def test_the_form_as_a_regular_expression_takes_answers_of_the_form_alone() -> None:
    form = CrashVLM(TINY, embedder=None).answering.form
    pattern = re.compile(regex(form))
    for seed in range(6):
        scene = sample_scene(seed)
        text = render(form.schema, Annotation.of(form.schema, scene.event, scene.values))
        assert pattern.fullmatch(text), text
        assert not pattern.fullmatch(text.replace(scene.values["Weather"], "Purple"))
