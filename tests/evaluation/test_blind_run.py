"""What is given as --blind: refused where it saw the clips, told where nothing says so."""

import json
from pathlib import Path

import pytest

from vlm_crash.evaluation.blind_run import check_blind


@pytest.fixture
def folder(tmp_path: Path):
    def make(name: str, blank: bool | None = None, weights: str = "abc") -> Path:
        path = tmp_path / name
        path.mkdir()
        (path / "predictions.jsonl").touch()
        if blank is not None:
            run = {"sampling": {"blank_frames": blank}, "checkpoint": {f"{name}/model.safetensors": weights}}
            (path / "run.json").write_text(json.dumps(run))
        return path

    return make


def test_what_saw_the_clips_is_refused(folder):
    model, seen = folder("model", False), folder("seen", False)
    with pytest.raises(ValueError, match=r"predictions\.jsonl is what is evaluated"):
        check_blind([model / "predictions.jsonl"], [model])
    with pytest.raises(ValueError, match=r"seen.run\.json says blank_frames: false.*--data\.blank_frames true"):
        check_blind([seen], [model])
    assert check_blind([], [model]) is None


def test_what_run_json_says_is_told(folder, caplog):
    model = folder("model", False)
    assert check_blind([folder("good", True)], [model]).endswith("good says blank_frames: true") and not caplog.text
    assert "their checkpoint is not that" in check_blind([folder("other", True, "def")], [model])
    assert "another checkpoint" in caplog.text
    assert "no run.json in" in check_blind([folder("old")], [model])
    broken = folder("broken", True)
    (broken / "run.json").write_text("[")
    with pytest.raises(ValueError, match=r"run\.json: it is no JSON"):
        check_blind([broken], [model])
