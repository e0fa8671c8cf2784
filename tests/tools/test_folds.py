"""tools/folds.py: options that cannot be, runs of other settings, a failing run that stops nothing; what is done is not
done again. (The training itself is that of fit, predict and evaluate; gathering is tested in tests/evaluation.)"""

import json
from pathlib import Path

import folds
import pytest


@pytest.fixture
def call(prepared: Path, tmp_path: Path):
    def run(*words: str) -> int:
        return folds.main([str(prepared), "--out", str(tmp_path), "--folds", "2", *words])

    return run


def test_a_run_that_fails_is_named_and_the_others_go_on(call, tmp_path: Path, capsys, monkeypatch):
    """No process is started here: the first step of fold 0 fails, those of fold 1 succeed and leave no evaluation."""
    asked = []

    def command(step: str, words: list[object], log: Path) -> int:
        asked.append((log.parent.parent.name, step, list(map(str, words))))
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("INFO something\nvlm_crash fit: error: no such model\n\n")
        return 2 if log.parent.parent.name == "fold-0" else 0

    monkeypatch.setattr(folds, "_command", command)
    monkeypatch.setattr(folds.Run, "read", lambda fold, seed, folder: folds.Run(fold, seed, {}, []))
    assert call("--fit", "--config demo.yaml --model.path 'a b'") == 1
    assert [(fold, step) for fold, step, _ in asked] == [
        ("fold-0", "fit"), ("fold-1", "fit"), ("fold-1", "predict"), ("fold-1", "evaluate")
    ]  # fmt: skip
    assert asked[0][2][:4] == ["--config", "demo.yaml", "--model.path", "a b"]
    assert asked[0][2][4:] == [
        "--data.folder", str(tmp_path / "fold-0/dataset"), "--output_dir", str(tmp_path / "fold-0/seed-0/fit"),
        "--seed_everything", "0", "--data.seed", "0", "--ckpt_path", "auto",
    ]  # fmt: skip
    said = capsys.readouterr().err
    assert "FAILED fold 0, seed 0: fit ended with 2: vlm_crash fit: error: no such model" in said
    assert "fold 1, seed 0 is not of the clips of that fold" in said  # it wrote no clips
    splits = [json.loads((tmp_path / f"fold-{n}/dataset/splits.json").read_text())["assign"] for n in range(2)]
    tested = [{id for id, split in assign.items() if split == "test"} for assign in splits]
    assert tested[0] | tested[1] == set(splits[0]) and not tested[0] & tested[1]
    asked.clear()
    assert call("--fit", "--config demo.yaml --model.path 'a b'", "--seeds", "0", "1") == 1
    again = [(fold, words[words.index("--seed_everything") + 1]) for fold, step, words in asked if step == "fit"]
    assert again == [("fold-0", "0"), ("fold-0", "1"), ("fold-1", "1")]
    assert call("--fit", "--config titan.yaml") == 2
    assert "holds runs of other settings (fit differ" in capsys.readouterr().err


def test_what_was_deleted_or_broken_since_is_named(call, tmp_path: Path, capsys):
    """Runs that are done, whose evaluations are not there any more; then a file of the tool that is something else."""
    for fold in range(2):
        (tmp_path / f"fold-{fold}/seed-0").mkdir(parents=True)
        (tmp_path / f"fold-{fold}/seed-0/done.json").write_text(json.dumps(dict.fromkeys(folds.STEPS, 1.0)))
    evaluation = tmp_path / "fold-1/seed-0/evaluation"
    evaluation.mkdir()
    for name in ("metrics.json", "records.json"):
        (evaluation / name).write_text("[1]")
    assert call() == 1
    said = capsys.readouterr().err
    assert "FAILED fold 0, seed 0: " in said and 'metrics.json\'; take "evaluate" out of' in said
    assert "FAILED fold 1, seed 0: " in said and "holds no evaluation" in said
    (tmp_path / "fold-0/seed-0/done.json").write_text("{")
    assert call() == 1
    assert "done.json is no JSON" in capsys.readouterr().err
    (tmp_path / "folds.json").write_text("[1]")
    assert call() == 2
    assert "folds.json holds no object ([1]); delete it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--fit", "--data.folder x"), "--fit has --data.folder, which this tool gives itself"),
        (("--seeds", "1", "1"), r"seeds=[1, 1] must be different numbers"),
        (("--val_fraction", "1"), "val_fraction=1.0 must be from 0 to below 1"),
        (("--folds", "500"), "folds=500 must be from 2 to the number of groups of clips, 20"),
    ],
)
def test_options_that_cannot_be(call, words: tuple[str, ...], message: str, capsys):
    assert call(*words) == 2
    assert message in capsys.readouterr().err
