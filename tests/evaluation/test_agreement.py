"""Cohen's kappa of two annotators: scikit-learn's number, an interval, and null with the reason where it has none."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from vlm_crash.evaluation.agreement import (
    ALWAYS_EQUAL,
    CONSTANT,
    NO_CLIP,
    field_agreement,
    load_annotators,
    resampled_kappa,
)
from vlm_crash.evaluation.bootstrap import ONE_GROUP
from vlm_crash.evaluation.evaluate import evaluate
from vlm_crash.evaluation.settings import EvaluationSettings
from vlm_crash.evaluation.tables import format_table


def test_each_draw_is_scikit_learns_kappa():
    rng = np.random.default_rng(0)
    left, right = (rng.choice(["a", "b", "c"], 30).tolist() for _ in range(2))
    counts_RN = rng.multinomial(30, np.full(30, 1 / 30), size=20).astype(float)
    got_R = resampled_kappa(left, right, counts_RN)
    for counts_N, got in zip(counts_RN.astype(int), got_R, strict=True):
        assert got == pytest.approx(cohen_kappa_score(np.repeat(left, counts_N), np.repeat(right, counts_N)))


def test_a_field_and_what_has_no_kappa(schema):
    weather, lanes, note = (schema.field(name) for name in ("Weather", "Lanes", "Note"))
    pairs = [("Clear", "Clear"), ("Rainy", "Rainy"), ("Clear", "Rainy"), ("Foggy", "Foggy"), ("Unknown", "Clear")] * 6
    entry = field_agreement(weather, pairs, None, 500, 0)
    known = [pair for pair in pairs if pair[0] != "Unknown"]
    assert entry["value"] == pytest.approx(cohen_kappa_score(*zip(*known, strict=True)))
    assert (entry["n"], entry["one_unknown"], entry["agreement"]) == (24, 6, 0.75)
    assert entry["low"] < entry["value"] < entry["high"] <= 1
    for field, said, reason in ((lanes, [("2", "2")] * 5, CONSTANT), (lanes, [("2", "Unknown")], NO_CLIP)):
        none = field_agreement(field, said, None, 500, 0)
        assert (none["value"], none["low"], none["high"]) == (None, None, None)
        assert none["reasons"]["value"] == reason
    assert field_agreement(lanes, [("2", "2")] * 5, None, 500, 0)["agreement"] == 1.0
    text = field_agreement(note, [("a", "b")], None, 500, 0)
    assert text["value"] is None and "turned off" in text["reasons"]["value"]
    equal = field_agreement(lanes, [("2", "2"), ("3", "3")] * 9, None, 500, 0)
    assert (equal["value"], equal["low"], equal["high"]) == (1.0, None, None)
    assert equal["reasons"] == {"low": ALWAYS_EQUAL, "high": ALWAYS_EQUAL}
    grouped = field_agreement(weather, pairs, None, 500, 0, [f"trip {n // 15}" for n in range(30)])
    assert grouped["value"] == entry["value"] and grouped["n"] == 24 and grouped["low"] != entry["low"]
    trip = field_agreement(weather, pairs, None, 500, 0, ["trip"] * 30)
    assert (trip["low"], trip["reasons"]["low"]) == (None, ONE_GROUP)
    # One says always the same: kappa is 0 by its definition, and no reason is needed.
    assert field_agreement(lanes, [("2", "2"), ("2", "3")] * 9, None, 500, 0)["value"] == 0.0


def test_evaluate_puts_the_ceiling_beside_the_scores(schema, write_csv, write_lines, say, tmp_path):
    terms = {f"{n}.mp4": {"Weather": ("Clear", "Rainy")[n % 2], "Lanes": "2"} for n in range(8)}
    truth = write_csv("crash", terms)
    other = {**terms, "0.mp4": {"Weather": "Rainy", "Lanes": "2"}, "99.mp4": {"Weather": "Clear"}}
    a, b = write_csv("crash", terms, "crash_a.csv"), write_csv("crash", other, "crash_b.csv")
    predictions = write_lines([say(video, "crash", values, "crash") for video, values in terms.items()])
    settings = EvaluationSettings(embedder=None, num_draws=200, annotators=(a, b))
    metrics = evaluate([predictions], [truth], tmp_path / "out", schema, settings)
    kappa = metrics["crash"]["fields"]["Weather"]["kappa"]
    left, right = (
        [values["Weather"] for video, values in said.items() if video != "99.mp4"] for said in (terms, other)
    )
    assert (kappa["value"], kappa["n"]) == (pytest.approx(cohen_kappa_score(left, right)), 8)
    assert metrics["crash"]["fields"]["Lanes"]["kappa"]["reasons"]["value"] == CONSTANT
    assert metrics["annotators"]["crash"] | {"files": 0} == {"files": 0, "n": 8, "only_first": 0, "only_second": 1}
    table = format_table(metrics, schema).splitlines()
    assert table[2].endswith("kappa")
    assert max(map(len, table)) <= 120
    assert next(line for line in table if line.startswith("Weather")).endswith(f"{kappa['value']:.3f}")
    alone = evaluate([predictions], [truth], tmp_path / "out", schema, EvaluationSettings(embedder=None, num_draws=200))
    assert "annotators" not in alone and "kappa" not in format_table(alone, schema)


def test_labels_of_the_page_and_what_cannot_be_compared(schema, write_csv, tmp_path):
    header = "event,video,field,old,new,note,annotator\n"
    a, b = tmp_path / "a.csv", tmp_path / "b.csv"
    a.write_text(header + "crash,1.mp4,Weather,,rainy,,a\nnearmiss,1.mp4,Lanes,,two,,a\n")
    b.write_text(header + "crash,1.mp4,Weather,,Clear,,b\nnearmiss,1.mp4,Lanes,,2,,b\n")
    said = load_annotators([a, b], schema)
    assert said["crash"] == ({"1.mp4": {"Weather": "Rainy"}}, {"1.mp4": {"Weather": "Clear"}})
    assert said["nearmiss"][0] == said["nearmiss"][1]
    with pytest.raises(
        ValueError, match=r"^annotators: .*a\.csv is of one person; give a second file, of another one$"
    ):
        load_annotators([a], schema)
    copy = tmp_path / "c.csv"
    copy.write_bytes(a.read_bytes())
    for same in (a, copy):
        with pytest.raises(ValueError, match=rf"crash: .*a\.csv and .*{same.name} are one file, or a copy.*nearmiss: "):
            load_annotators([a, same], schema)
    wrong = tmp_path / "wrong.csv"
    wrong.write_text(a.read_text().replace("new", "neu", 1))
    with pytest.raises(ValueError, match=r"the header lacks 'new'; allowed: labels\.csv .* event, video, field, new"):
        load_annotators([wrong, b], schema)
    b.write_text(header + "crash,1.mp4,Weather,,Raniy,,b\ncrash,1.mp4,Wether,,Clear,,b\n")
    with pytest.raises(ValueError, match=r"(?s)row 1.*'Raniy' is not understood; allowed: Clear.*row 2.*'Wether'"):
        load_annotators([a, b], schema)
    other = write_csv("crash", {"7.mp4": {"Weather": "Clear"}}, "crash_c.csv")
    one = write_csv("crash", {"8.mp4": {"Weather": "Clear"}}, "crash_d.csv")
    with pytest.raises(ValueError, match="have no clip in common"):
        load_annotators([one, other], schema)


def test_a_kappa_that_every_draw_has_is_without_limits(schema):
    weather = schema.field("Weather")
    for pairs in ([("Clear", "Rainy")], [("Clear", "Clear"), ("Rainy", "Rainy"), ("Foggy", "Foggy")]):
        entry = field_agreement(weather, pairs, None, 300, 0)
        assert entry["value"] is not None and entry["low"] is entry["high"] is None
        assert set(entry["reasons"]) == {"low", "high"}


def test_csvs_may_lack_columns_as_the_truth_may(schema, tmp_path):
    for name, weather in (("crash_a.csv", "Clear"), ("crash_b.csv", "Rainy")):
        (tmp_path / name).write_text(f"video_id,Weather\n1,{weather}\n")
    said = load_annotators([tmp_path / "crash_a.csv", tmp_path / "crash_b.csv"], schema)["crash"]
    assert [one["1.mp4"]["Weather"] for one in said] == ["Clear", "Rainy"]
