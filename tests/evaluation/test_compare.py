"""Two evaluations side by side: what is a difference, what is none, and what cannot be compared."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, rankdata
from sklearn.metrics import average_precision_score, roc_auc_score

from vlm_crash.cli import main
from vlm_crash.data.multiple_testing import holm
from vlm_crash.evaluation.compare import compare
from vlm_crash.evaluation.comparison_files import format_comparison, write_comparison
from vlm_crash.evaluation.paired_tests import could_decide, flips_for, mcnemar, num_differing, sign_flip


def test_sign_flips_come_to_the_p_of_all_flips():
    sums_GK = np.array([[1.0, 0.3], [1.0, -0.2], [0.0, 0.9], [1.0, 0.4], [-1.0, 0.1], [1.0, 0.5]])
    flips = np.array(list(itertools.product([-1, 1], repeat=6))) @ sums_GK
    exact_K = (np.abs(flips) >= np.abs(sums_GK.sum(0)) - 1e-9).mean(0)
    np.testing.assert_allclose(sign_flip(sums_GK, 20_000, np.random.default_rng(0)), exact_K, atol=0.01)
    assert sign_flip(np.zeros((4, 1)), 100, np.random.default_rng(0)) == 1


def test_flips_of_many_rows_leave_room_for_holm():
    """100 rows, of which one has all of 40 groups for A: with 100 draws or 2,000 the flips do not hide it."""
    rng = np.random.default_rng(0)
    sums_GK = rng.choice([-1.0, 1.0], size=(40, 100)) * rng.random((40, 100))
    sums_GK[:, 0] = np.abs(sums_GK[:, 0])
    p_values = sign_flip(sums_GK, flips_for(100, 100), rng).tolist()
    assert holm(p_values)[0] < 0.05 < min(holm(p_values)[1:])
    assert could_decide(p_values, num_differing(sums_GK).tolist()) == [True] * 100
    assert could_decide([1.0, 1.0, 0.001], [6, 7, 0]) == [False, True, True]  # 2^-5 and 2^-6, times two rows left
    few_G1 = np.array([[0.4], [0.1], [0.0], [0.3], [0.3 - 0.3 + 1e-17]])  # three differ: 1 of the 4 ways
    assert sign_flip(few_G1, 2000, rng) == 0.25 and num_differing(few_G1) == 3


def test_mcnemar_is_exact():
    a_N, b_N = np.array([True] * 9 + [False] * 2 + [True] * 5), np.array([False] * 9 + [True] * 2 + [True] * 5)
    assert mcnemar(a_N, b_N) == (9, 2, pytest.approx(binomtest(2, 11).pvalue))
    assert holm([0.001, 0.8, 0.02]) == pytest.approx([0.003, 0.8, 0.04])


@pytest.fixture
def write_folder(tmp_path: Path):
    """An evaluation of `right` clips in each field: made as `evaluate` writes it, of two events and three fields."""

    def write(name: str, right: dict[str, list[bool]], first: int = 0, **settings: Any) -> Path:
        fields = {"Weather": "categorical", "Lanes": "count", "Note": "text"}
        clips = []
        for n in range(len(right["Weather"])):
            event = ("crash", "nearmiss")[n % 2]
            one = {
                field: {"truth": f"{field} {n + first}", "verdict": "right", "score": float(right[field][n])}
                for field in fields
            }
            is_right = right.get("event", right["Weather"])[n]
            said = event if is_right else None
            said_so = right.get("probability", [0.8 if (event == "crash") == is_right else 0.2] * (n + 1))[n]
            clip = {"event": event, "video": f"{n + first}.mp4", "fields": one, "predicted_event": said}
            clip["event_probability"] = said_so
            clips.append({**clip, "event_told": False, "group": f"trip {(n + first) // 4}"})
        folder = tmp_path / name
        folder.mkdir()
        entry = {"fields": {field: {"kind": kind} for field, kind in fields.items()}}
        metrics = {
            "crash": entry,
            "nearmiss": entry,
            "settings": {"embedder": "minilm", "group_column": None, **settings},
        }
        schema = {"events": {"crash": {"title": "Crash"}, "nearmiss": {"title": "Near miss"}}}
        (folder / "metrics.json").write_text(json.dumps(metrics))
        (folder / "records.json").write_text(json.dumps({"schema": schema, "clips": clips}))
        return folder

    return write


@pytest.fixture
def two(write_folder) -> tuple[Path, Path]:
    """A has the weather right in 30 clips of 80 more than B; of the rest they differ by chance."""
    rng = np.random.default_rng(0)
    noise = {name: (rng.random(80) < 0.6).tolist() for name in ("Lanes", "Note")}
    other = {name: (rng.random(80) < 0.6).tolist() for name in ("Lanes", "Note")}
    better, worse = [True] * 80, [n % 8 < 5 for n in range(80)]
    return write_folder("a", {**noise, "Weather": better}), write_folder("b", {**other, "Weather": worse})


def by_name(comparison: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["event"], row["field"]): row for row in comparison["fields"]}


def test_a_difference_and_none(two):
    there, back = compare(*two), compare(*reversed(two))
    rows, turned = by_name(there), by_name(back)
    weather = rows["crash", "Weather"]
    assert (weather["n"], weather["a"], weather["b"], weather["only_a_right"], weather["only_b_right"]) == (
        40, 1, 0.75, 10, 0
    )  # fmt: skip
    assert weather["p"] == pytest.approx(2 / 2**10) and weather["p_holm"] < 0.05
    assert 0 < weather["low"] < weather["difference"] == 0.25 < weather["high"]
    assert weather["verdict"] == "A better" and turned["crash", "Weather"]["verdict"] == "B better"
    for field in ("Lanes", "Note"):
        assert rows["crash", field]["verdict"] == turned["crash", field]["verdict"] == "cannot tell apart"
    assert rows["event", "event"]["difference"] == pytest.approx(30 / 80)
    assert [row["p_holm"] for row in there["fields"]] == holm([row["p"] for row in there["fields"]])
    assert {row["event"] for row in there["means"]} == {"crash", "nearmiss", "all"}
    assert all(row["p_holm"] is None and row["metric"] == "exact_match" for row in there["means"])
    assert there == compare(*two)


def test_an_evaluation_and_itself_cannot_be_told_apart(two):
    same = compare(two[0], two[0])
    assert {row["verdict"] for row in [*same["fields"], *same["means"]]} == {"cannot tell apart"}
    assert {row["p"] for row in same["fields"]} == {1.0}
    found = {(row["difference"], row["low"], row["high"], row["reason"]) for row in [*same["fields"], *same["means"]]}
    assert found == {(0, None, None, "no clip differs")}


@pytest.mark.parametrize(("column", "low"), [(None, 0.824), ("Trip", 0.663)])  # 40 clips; 20 groups
def test_right_in_all_against_none_has_exact_limits(write_folder, column, low):
    right = {"Lanes": [True] * 80, "Note": [True] * 80}
    a = write_folder("a", {**right, "Weather": [True] * 80}, group_column=column)
    b = write_folder("b", {**right, "Weather": [False] * 80}, group_column=column)
    there, back = (by_name(compare(*pair, num_draws=100)) for pair in ((a, b), (b, a)))
    row, turned = there["crash", "Weather"], back["crash", "Weather"]
    expected = 2 * 0.025 ** (1 / (40 if column is None else 20)) - 1
    assert (row["low"], row["high"], row["difference"]) == (pytest.approx(expected), 1, 1) and "reason" not in row
    assert (turned["low"], turned["high"]) == (-1, -row["low"]) and round(row["low"], 3) == low
    num_units = 80 if column is None else 20
    assert there["event", "event"]["low"] == pytest.approx(2 * 0.025 ** (1 / num_units) - 1)


def test_rankings_are_compared_by_exchange(write_folder):
    """Both scores are scikit-learn's, a clip without a probability is worst; p is of exchange, and counted."""
    rng = np.random.default_rng(5)
    is_crash_N = np.arange(12) % 2 == 0
    sharp_N, blunt_N = np.where(is_crash_N, 0.6, 0.4) + rng.normal(0, 0.05, 12), rng.random(12)
    fields = {name: [True] * 12 for name in ("Weather", "Lanes", "Note")}
    a = write_folder("a", {**fields, "probability": sharp_N.tolist()})
    b = write_folder("b", {**fields, "probability": [None, *blunt_N[1:].tolist()]})
    comparison = compare(a, b, num_draws=4000)
    rows = by_name(comparison)
    blunt_N[0] = -1  # a crash below all others
    ranks = [rankdata(one) for one in (sharp_N, blunt_N)]
    for name, score in (("auroc", roc_auc_score), ("average_precision", average_precision_score)):
        row = rows["event", name]
        assert (row["n"], row["metric"]) == (12, name)
        assert (row["a"], row["b"]) == (score(is_crash_N, sharp_N), pytest.approx(score(is_crash_N, blunt_N)))
        assert row["low"] < row["difference"] < row["high"]
        swaps = [np.array(swap) for swap in itertools.product([False, True], repeat=12)]
        sides = [(np.where(s, ranks[1], ranks[0]), np.where(s, ranks[0], ranks[1])) for s in swaps[::7]]
        flipped = np.array([score(is_crash_N, left) - score(is_crash_N, right) for left, right in sides])
        assert row["p"] == pytest.approx((np.abs(flipped) >= abs(row["difference"]) - 1e-9).mean(), abs=0.03)
    tested = [row for row in comparison["fields"] if row["p"] is not None]
    assert len(tested) == 9 and [row["p_holm"] for row in tested] == holm([row["p"] for row in tested])
    assert "9 rows" in comparison["settings"]["p_holm"] and "exchanging" in comparison["settings"]["p"]
    none = write_folder("c", {**fields, "probability": [None] * 12})
    row = by_name(compare(a, none))["event", "auroc"]
    assert (row["n"], row["p"], row["p_holm"], row["verdict"]) == (0, None, None, "cannot tell apart")
    assert row["reason"] == "no prediction of B carries an event_probability"


def test_groups_are_flipped_whole(write_folder, capsys):
    """Four clips of a trip that all differ the same way are one piece of evidence, not four."""
    right = {"Lanes": [True] * 32, "Note": [True] * 32}
    worse = [n // 4 % 2 == 0 for n in range(32)]  # all clips of four trips
    for column in (None, "Trip"):
        a = write_folder(f"a{column}", {**right, "Weather": [True] * 32}, group_column=column)
        b = write_folder(f"b{column}", {**right, "Weather": worse}, group_column=column)
        p = by_name(compare(a, b))["crash", "Weather"]["p"]
        assert p == pytest.approx(2 / 2**8 if column is None else 2 / 2**4)
    row = by_name(compare(a, b))["crash", "Weather"]
    assert (row["num_differing"], row["could_decide"], row["verdict"]) == (4, False, "cannot tell apart")
    assert row["reason"] == "4 groups differ: too few to tell 9 rows"
    assert main(["compare", str(a), str(b)]) == 0
    said = capsys.readouterr().out
    assert "cannot tell apart*" in said and "* so few groups differ that this row could not" in said


def test_few_draws_do_not_hide_a_difference(write_folder):
    """Texts and clips in groups of two, all for A in one field: told apart with the fewest draws that are allowed."""
    right = {"Weather": [True] * 80, "Lanes": [True] * 80, "Note": [True] * 80}
    a = write_folder("a", right, group_column="Trip")
    b = write_folder("b", {**right, "Note": [False] * 80, "event": [True] * 80}, group_column="Trip")
    row = by_name(compare(a, b, num_draws=100))["crash", "Note"]
    assert (row["num_differing"], row["could_decide"], row["verdict"]) == (20, True, "A better")
    assert row["p_holm"] < 0.05 and compare(a, b, num_draws=100)["settings"]["flips"] == 1800


def test_groups_of_one_folder_alone_hold_for_both_and_are_told(write_folder, caplog):
    right = {name: [n % 3 > 0 for n in range(32)] for name in ("Weather", "Lanes", "Note")}
    other = {**right, "Weather": [n % 8 < 5 for n in range(32)]}
    a, b = write_folder("a", right, group_column="Trip"), write_folder("b", other, group_column="Trip")
    plain, alone = write_folder("c", other), write_folder("d", right)
    both, mixed, none = compare(a, b), compare(a, plain), compare(alone, plain)
    assert mixed["fields"] == both["fields"] != none["fields"]
    note = mixed["settings"]["groups_note"]
    assert "A by Trip; B without groups" in note and note in caplog.text
    assert both["settings"]["groups_note"] is None is none["settings"]["groups_note"]
    assert (both["settings"]["groups"], none["settings"]["groups"]) == ("Trip", None)


def test_clips_of_one_alone_are_named_and_left_out(write_folder):
    right = {name: [True] * 10 for name in ("Weather", "Lanes", "Note")}
    a, b = write_folder("a", right), write_folder("b", right, first=2)
    comparison = compare(a, b)
    assert comparison["n"] == 8
    assert comparison["only_in_a"] == {"n": 2, "clips": ["crash/0.mp4", "nearmiss/1.mp4"]}
    assert comparison["only_in_b"] == {"n": 2, "clips": ["crash/10.mp4", "nearmiss/11.mp4"]}


def test_texts_of_different_embedders_have_no_difference(write_folder):
    right = {name: [True] * 10 for name in ("Weather", "Lanes", "Note")}
    comparison = compare(write_folder("a", right), write_folder("b", right, embedder=None))
    note = by_name(comparison)["crash", "Note"]
    assert (note["n"], note["difference"], note["p"]) == (0, None, None) and "embedder" in note["reason"]


def test_an_event_of_which_only_texts_are_known_has_no_mean(two):
    for folder in two:
        records = json.loads((folder / "records.json").read_text())
        for clip in records["clips"]:
            if clip["event"] == "nearmiss":
                for field in ("Weather", "Lanes"):
                    clip["fields"][field] |= {"truth": "Unknown", "score": None}
        (folder / "records.json").write_text(json.dumps(records))
    comparison = compare(*two)
    crash, nearmiss, together = comparison["means"]
    assert (nearmiss["n"], nearmiss["p"], nearmiss["reason"]) == (0, None, "no clip has a score in both")
    assert nearmiss["verdict"] == "cannot tell apart" and crash["p"] < 1
    assert together["difference"] == crash["difference"]
    format_comparison(comparison, {})


def test_cosines_that_differ_by_rounding_do_not_differ(write_folder):
    """40 texts of an event, each 1e-7 nearer in A than in B, as float32 gives them: no difference, and no verdict."""
    right = {name: [True] * 80 for name in ("Weather", "Lanes", "Note")}
    a, b = write_folder("a", right | {"Note": [0.8 + 1e-7] * 80}), write_folder("b", right | {"Note": [0.8] * 80})
    note = by_name(compare(a, b))["crash", "Note"]
    assert (note["num_differing"], note["p"], note["difference"], note["low"]) == (0, 1, 0, None)
    assert (note["verdict"], note["reason"]) == ("cannot tell apart", "no clip differs")
    far = compare(a, write_folder("c", right | {"Note": [0.8 - 1e-5] * 80}))
    note = by_name(far)["crash", "Note"]
    assert (note["num_differing"], note["verdict"]) == (40, "A better")
    assert {mean["reason"] for mean in far["means"]} == {"no clip differs"}  # in what the means are of


def test_different_truths_are_refused(two, capsys):
    records = json.loads((two[1] / "records.json").read_text())
    records["clips"][3]["fields"]["Lanes"]["truth"] = "9"
    (two[1] / "records.json").write_text(json.dumps(records))
    assert main(["compare", str(two[0]), str(two[1])]) == 2
    said = capsys.readouterr().err
    assert "judge by different truths, in 1 values of 80 clips: nearmiss/3.mp4 Lanes: 'Lanes 3' and '9'" in said
    with pytest.raises(ValueError, match="num_draws=5 is too few"):
        compare(*two, num_draws=5)
    with pytest.raises(FileNotFoundError, match="give a folder that `evaluate` wrote"):
        compare(two[0], two[0] / "none")
    records["clips"][3]["fields"]["Lanes"] |= {"truth": "Lanes 3", "score": "x"}
    (two[1] / "records.json").write_text(json.dumps(records))
    said = r"b/records\.json: nearmiss/3\.mp4 Lanes: score is 'x', neither a number nor null; run `evaluate` again"
    with pytest.raises(ValueError, match=said):
        compare(*two)
    (two[1] / "metrics.json").write_text("{}")
    with pytest.raises(ValueError, match="not an evaluation of this version"):
        compare(*two)


def test_the_command_prints_and_writes(two, tmp_path: Path, capsys):
    assert main(["compare", str(two[0]), str(two[1]), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert all(len(line) <= 120 for line in said.splitlines() if not line.startswith(("A: ", "B: ", str(tmp_path))))
    assert "A better" in said and "cannot tell apart" in said
    comparison = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert comparison == json.loads(json.dumps(compare(*two)))
    with (tmp_path / "out" / "comparison.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["field"] for row in rows[:3]] == ["Weather", "Lanes", "Note"] and rows[-1]["p_holm"] == ""
    write_comparison(comparison, tmp_path / "again")
    assert (tmp_path / "again" / "comparison.csv").read_bytes() == (tmp_path / "out" / "comparison.csv").read_bytes()
