"""tools/bench.py train in its smallest form: every way runs, and the ratios are those of its rows."""

import json
from pathlib import Path

import pytest
from bench import main

SIZES = ["--clips", "4", "--frames", "1", "2", "--vocabulary", "4000", "--trainer_batch_sizes", "2", "--rounds", "1"]


def test_a_small_run(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- bench train -->\n<!-- end of bench train -->\n")
    assert main(["train", *SIZES, "--json", str(tmp_path / "train.json"), "--markdown", str(page)]) == 0
    found = json.loads((tmp_path / "train.json").read_text())
    ours, theirs = (table["rows"] for table in found["tables"])
    assert [row[0] for row in ours] == [*["padded", "grouped", "packed"] * 2, "grouped", "packed, one mask"]
    assert all(row[4] > 0 and row[7] > 0 for row in [*ours, *theirs])
    assert ours[0][6] > 0 and ours[2][6] == 0, "packs have no padding"
    assert all(kept[7] > again[7] for kept, again in zip(ours[:3], ours[3:6], strict=True))
    assert ours[6][7] > ours[1][7], "logits at all places take more than those at labels"
    ratios = found["ratios"]
    best = max(ours[:3], key=lambda row: row[4])
    assert ratios["clips_per_s_vs_trainer"] == pytest.approx(best[4] / theirs[0][4])
    assert ratios["peak_share_of_trainer"] == pytest.approx(best[7] / theirs[0][7])
    assert {"labels_vs_all_places", "packed_vs_padded", "checkpointed_peak_share_of_trainer"} <= ratios.keys()
    assert "### Training with transformers' Trainer" in page.read_text()
