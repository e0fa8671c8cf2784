"""tools/check_demo.py: every bar holds by itself, and a figure that is not there fails."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MET = {
    "balanced_accuracy": 0.85,
    "exact_match": 0.80,
    "majority_baseline": 0.50,
    "blind_balanced_accuracy": 0.55,
    "blind_exact_match": 0.55,
    "blind_exact_match_given_event": 0.55,
    "linear_exact_match": 0.65,
    "base_exact_match": 0.82,
    "num_test_clips": 60,
    "render_seconds": 59.9,
    "seconds": 599.9,
    "peak_memory_gib": 5.99,
}


def check(tmp_path: Path, figures: dict) -> subprocess.CompletedProcess:
    (tmp_path / "demo.json").write_text(json.dumps(figures))
    command = [sys.executable, ROOT / "tools/check_demo.py", tmp_path / "demo.json"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_figures_on_the_bars_pass(tmp_path):
    result = check(tmp_path, MET)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("balanced_accuracy", 0.849),
        ("exact_match", 0.799),
        ("majority_baseline", 0.501),
        ("blind_balanced_accuracy", 0.551),
        ("blind_exact_match", 0.551),
        ("blind_exact_match_given_event", 0.551),
        ("linear_exact_match", 0.651),
        ("base_exact_match", 0.821),
        ("num_test_clips", 59),
        ("render_seconds", 60),
        ("seconds", 600),
        ("peak_memory_gib", 6),
        ("exact_match", None),
        ("exact_match", float("nan")),
        ("seconds", "fast"),
    ],
)
def test_each_bar_fails_by_itself_and_is_named(tmp_path, name, value):
    result = check(tmp_path, MET | {name: value})
    assert result.returncode == 1
    assert name in result.stderr


def test_an_absent_figure_fails(tmp_path):
    result = check(tmp_path, {name: value for name, value in MET.items() if name != "blind_exact_match"})
    assert result.returncode == 1
    assert "blind_exact_match" in result.stderr


def test_no_file_says_what_to_run(tmp_path):
    command = [sys.executable, ROOT / "tools/check_demo.py", tmp_path / "demo.json"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "make demo" in result.stderr
