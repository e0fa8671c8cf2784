"""tools/bench.py whole: a few clips go through all stages, and what is lost is seen."""

import json
import shutil
from pathlib import Path

import pytest
from bench import main


def test_a_small_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("decord")
    small = ["--count", "40", "--rendered", "2", "--seconds", "1", "--out", str(tmp_path / "whole")]
    words = ["whole", "--clips", str(tmp_path / "none"), *small]
    assert main([*words, "--until", "gone on"]) == 0
    assert "### " not in capsys.readouterr().out
    fit = {"seconds": 1.0, "peak_mib": 1.0, "rows": 40, "said": FIT}  # the stage that takes a model
    (tmp_path / "whole/tokens.json").write_text(json.dumps(fit))
    assert main([*words, "--json", str(tmp_path / "whole.json")]) == 0
    found = json.loads((tmp_path / "whole.json").read_text())
    counts = [row[1] for row in found["tables"][0]["rows"]]
    assert counts[0] == counts[1] + counts[2] == 40 and all(bar["is_met"] for bar in found["bars"])
    shutil.copyfile(tmp_path / "whole/dataset/clips.csv", tmp_path / "whole/at_ctrl_c.csv")
    table = tmp_path / "whole/after.csv"
    table.write_text(table.read_text().replace(",ok,", ",damaged,", 1))
    assert main(words) == 1


FIT = """train: the tokens of 37 clips are in order (looked at in 0.1 s)
37 of 40 clips used, 3 quarantined: clips.csv"""
