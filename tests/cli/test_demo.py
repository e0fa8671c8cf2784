"""The demo, small: every command runs, and its figures can be computed again from the files it leaves."""

import csv
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import nbformat
import pytest
from jsonargparse import Namespace
from run_notebooks import run

from vlm_crash.cli import demo, main
from vlm_crash.cli.demo import BASE_MODEL, make_room
from vlm_crash.data.prepared import load_prepared
from vlm_crash.demo.clips import MOST_CLIPS, MOST_SEEDS
from vlm_crash.evaluation.baselines import linear_baseline
from vlm_crash.schema.fields import load_schema

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "run"
    assert main(["demo", "--out", str(folder), "--num_clips", "24", "--max_epochs", "1"]) == 0
    return folder


@pytest.fixture(scope="module")
def figures(out: Path) -> dict[str, float]:
    return json.loads((out / "demo.json").read_text())


def _truth(out: Path) -> dict[tuple[str, str], dict[str, str]]:
    """(event, clip) -> row of its CSV, for the clips of the test split."""
    assign = json.loads((out / "dataset" / "splits.json").read_text())["assign"]
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for event in ("crash", "nearmiss"):
        with (out / "clips" / f"AV_{event}_modified_r.csv").open() as file:
            for row in csv.DictReader(file):
                if assign[f"{event}_{row['video_id']}"] == "test":
                    rows[event, f"{row['video_id']}.mp4"] = row
    return rows


def _answers(out: Path, folder: str) -> Iterator[dict]:
    with (out / folder / "predictions.jsonl").open() as file:
        yield from map(json.loads, file)


@pytest.mark.parametrize(("folder", "prefix"), [("predictions", ""), ("blind", "blind_"), ("base", "base_")])
def test_figures_follow_from_the_files(out: Path, figures: dict[str, float], folder: str, prefix: str) -> None:
    truth = _truth(out)
    answers = {(row["source_event"], row["video"]): row for row in _answers(out, folder)}
    assert answers.keys() == truth.keys()
    assert figures["num_test_clips"] == len(truth)
    recalls, shares = [], []
    for event in load_schema().events:
        clips = [key for key in truth if key[0] == event.name]
        recalls.append(sum(answers[key]["event"] == event.name for key in clips) / len(clips))
        for field in event.fields:
            if field.kind != "text":
                column = field.columns[0]
                right = [
                    answers[key]["event"] == event.name and answers[key]["fields"].get(field.name) == truth[key][column]
                    for key in clips
                ]
                shares.append(sum(right) / len(clips))
    assert figures[f"{prefix}balanced_accuracy"] == pytest.approx(sum(recalls) / len(recalls))
    assert figures[f"{prefix}exact_match"] == pytest.approx(sum(shares) / len(shares))


def test_majority_baseline_follows_from_the_csvs(out: Path, figures: dict[str, float]) -> None:
    truth = _truth(out)
    shares = []
    for event in load_schema().events:
        for field in event.fields:
            if field.kind != "text":
                values = [row[field.columns[0]] for (name, _), row in truth.items() if name == event.name]
                shares.append(max(map(values.count, values)) / len(values))
    assert figures["majority_baseline"] == pytest.approx(sum(shares) / len(shares))


def test_linear_baseline_follows_from_the_clips(out: Path, figures: dict[str, float]) -> None:
    schema = load_schema()
    splits = load_prepared(out / "dataset", schema)
    linear = linear_baseline(splits["train"], splits["test"], schema)
    assert linear.exact_match == pytest.approx(figures["linear_exact_match"])
    assert linear.event_balanced_accuracy == pytest.approx(figures["linear_balanced_accuracy"])
    assert json.loads((out / "linear_baseline.json").read_text()) == pytest.approx(asdict(linear))


def test_blind_frames_are_black(out: Path) -> None:
    run = json.loads((out / "blind" / "run.json").read_text())
    assert run["sampling"]["blank_frames"] is True
    assert len({row["response"] for row in _answers(out, "blind")}) < len(list(_answers(out, "blind")))


def test_the_page_is_there(out: Path) -> None:
    assert "<html" in (out / "report.html").read_text(encoding="utf-8")[:500]


@pytest.mark.parametrize("name", ["explore_dataset", "explore_predictions"])
def test_the_notebooks_run_on_it(out: Path, tmp_path: Path, name: str) -> None:
    """Top to bottom in a kernel, beside a runs/demo as theirs; what is saved in them came the same way."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/demo").symlink_to(out)
    found = run(ROOT / f"notebooks/{name}.ipynb", tmp_path)
    saved = nbformat.read(ROOT / f"notebooks/{name}.ipynb", as_version=4)
    for cell, old in zip(found.cells, saved.cells, strict=True):
        kinds = [
            [(output.output_type, *sorted(output.get("data", {}))) for output in c.get("outputs", [])]
            for c in (cell, old)
        ]
        assert kinds[0] == kinds[1], cell.source
    text = json.dumps([cell.get("outputs") for cell in saved.cells])
    assert "image/jpeg" in text and str(ROOT) not in text and str(Path.home()) not in text
    assert not re.search(r"^ *(def|class) ", "\n".join(cell.source for cell in saved.cells), re.MULTILINE)


def test_the_seed_is_that_of_the_order_of_the_clips_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No command is run here: only what they are asked."""
    asked = {}
    monkeypatch.setattr(demo, "_command", lambda name, options, *folders: asked.setdefault(name, options))
    demo._steps(tmp_path, Namespace(seed=3, from_scratch=False, max_epochs=None))
    assert {name: asked["fit"][name] for name in ("seed_everything", "data.seed")} == {
        "seed_everything": 3, "data.seed": 3
    }  # fmt: skip
    assert asked["prepare"]["seed"] == 3


def test_an_earlier_demo_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    for whole, kept in ((True, True), (False, True)):
        out.mkdir()
        (out / ".demo").touch()
        if whole:
            (out / "demo.json").write_text("{}")
        make_room(out)
        assert [path.name for path in out.iterdir()] == [".demo"]
        assert (tmp_path / "demo.earlier" / "demo.json").exists() is kept
        shutil.rmtree(out)


def test_a_folder_of_others_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert "was not made by demo" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").exists()


def test_the_base_model_fits_the_package() -> None:
    assert sum(file.stat().st_size for file in BASE_MODEL.iterdir()) <= 8_000_000
    log = json.loads((BASE_MODEL / "base.json").read_text())
    # The demo's scenes have seeds below the base model's.
    assert log["first_seed"] >= MOST_SEEDS * MOST_CLIPS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num_clips", "9"], "num_clips=9 is too few for clips to train on, to validate and to test; set"),
        (["--num_clips", "1"], "num_clips=1 is not in [2, "),
        (["--seed", "-1"], "seed=-1 is not in [0, 999]; set --seed to one of them"),
    ],
)
def test_what_cannot_be_a_demo_leaves_the_earlier_one(wrong, tmp_path, options, message):
    out = tmp_path / "demo"
    out.mkdir()
    for name in (".demo", "demo.json"):
        (out / name).write_text("earlier")
    assert message in wrong("demo", "--out", out, *options)
    assert {path.name for path in tmp_path.rglob("*")} == {"demo", ".demo", "demo.json"}
