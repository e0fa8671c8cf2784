"""tools/bench.py train in its smallest form: every way runs, and the ratios are those of its rows."""

import argparse
import json
from pathlib import Path

import pytest
from bench import main
from benches import train
from benches.training_ways import Run, Way

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


#: Clips a second of Trainer's batch sizes by round: the first round's best is not the best of all.
TRAINER = {1: [9.0, 1.0, 1.1], 2: [2.0, 2.0, 1.9], 4: [1.5, 1.5, 9.0]}


@pytest.mark.parametrize(("trained", "is_met"), [(3.5, True), (2.5, False)])
def test_trainers_batch_size_is_the_best_of_all_rounds(trained: float, is_met: bool) -> None:
    """Of runs whose speeds are known; peaks are 10 bytes a clip of ours, 20 of Trainer's."""
    order: list[Way] = []

    def ours(way: Way, counts_memory: bool) -> Run:
        order.append(way)
        return Run(1 / trained, 10 * way.batch_size, 1, clips=1, tokens=1, places=1, steps=1)

    def theirs(way: Way, counts_memory: bool) -> Run:
        turn = order.count(way)
        order.append(way)
        speed = TRAINER[way.batch_size][min(turn, 2)]
        return Run(1 / speed, 20 * way.batch_size, 1, clips=1, tokens=1, places=1, steps=1)

    options = argparse.Namespace(
        batch_size=2, trainer_batch_sizes=[1, 2, 4], rounds=3, vocabulary=151_674, frames=[1, 2]
    )
    item = train.make_items(train.CrashVLM(train.TINY, init="random", embedder=None).inputs, 1, (1, 1))
    found = train._compare(ours, theirs, options, item)
    for size in (1, 2, 4):
        assert order.count(Way("Trainer", size, loss_on="all")) == 4, "three rounds, and once for the memory"
    again = [way for way in order if way.name == "Trainer" and way.checkpointing]
    assert {way.batch_size for way in again} == {2}, "medians are 1.1, 2 and 1.5"
    assert order[:6] == order[8:14], "in turns"
    assert found.ratios["clips_per_s_vs_trainer"] == pytest.approx(trained / 2)
    assert found.ratios["peak_share_of_trainer_at_its_batch_size"] == pytest.approx(0.5)
    (bar,) = found.bars
    assert bar.is_met == is_met
    both, others = bar.what.split("Both: ")[1].split("; not both: ")
    assert ("padded of 2" in both) == is_met and "padded of 4" in others, "of 4 clips the peak is that of Trainer's 2"
    assert ("- Bar, reached: " if is_met else "- Bar, NOT REACHED: ") in found.to_markdown()
