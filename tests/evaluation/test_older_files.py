"""A folder given again: what `evaluate` did not write is not removed."""

import json

from vlm_crash.evaluation.evaluate import evaluate
from vlm_crash.evaluation.settings import EvaluationSettings

WET = {"Weather": "Rainy", "Lanes": "2"}
NO_TEXTS = EvaluationSettings(embedder=None, num_draws=100)


def test_what_no_older_evaluation_wrote_stays(say, write_csv, write_lines, tmp_path, caplog):
    """A lab's own files of the same names: without scores of ours, with others' metrics.json, and beside ours."""
    lines, truth = write_lines([say("1.mp4", "crash", WET, "crash")], "p.jsonl"), write_csv("crash", {"1.mp4": WET})
    mine = {f"{kind}-nearmiss.csv": "a lab's" for kind in ("formatted", "formatted-normalized")}
    mine |= {"evaluation_nearmiss.csv": "a lab's", "calibration.json": '{"camera_matrix": [1], "fields": []}'}
    others = {"nearmiss": {"fields": {}}, "settings": {"lr": 1}}
    for folder, metrics in {"bare": None, "other": others}.items():
        out = tmp_path / folder
        out.mkdir()
        for name, text in (mine | ({"metrics.json": json.dumps(metrics)} if metrics else {})).items():
            (out / name).write_text(text)
        for _ in range(2):  # the second time scores of ours are there, which had no near miss
            evaluate([lines], [truth], out, settings=NO_TEXTS)
            assert {name: (out / name).read_text() for name in mine} == mine
    (out / "calibration.json").write_text('{"schema": "x", "runs": [], "wanted": 0.9, "event": {}, "fields": {}}')
    assert "older" not in caplog.text
    evaluate([lines], [truth], out, settings=NO_TEXTS)
    assert f"removed from {out}, being of an older evaluation: calibration.json" in caplog.text
    assert not (out / "calibration.json").exists()
