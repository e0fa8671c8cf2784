"""tools/bench.py check: a small run looks at every clip in each way, and holds what they say of decord together."""

import json
from pathlib import Path

import pytest
from bench import main
from benches import check


def test_a_small_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("decord")
    monkeypatch.setattr(check, "MINUTES", 1e6)  # on whatever machine
    small = ["--rendered", "1", "--seconds", "1", "--copies", "2", "--workers", "1", "--rounds", "0"]
    file = tmp_path / "check.json"
    assert main(["check", "--clips", str(tmp_path / "none"), *small, "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    rows = found["tables"][0]["rows"]
    assert [row[:2] for row in rows] == [
        [name, way] for name in ("2 rendered", "all 2") for way in (check.DECODED, check.JUDGED, check.TWICE)
    ]
    for row in rows:
        assert row[2] * row[3] == pytest.approx(check.NUM_CLIPS) and row[4] == (None if row[1] == check.DECODED else 0)
    assert found["notes"] and "both ways say the same of decord for each of 2 clips" in capsys.readouterr().out
