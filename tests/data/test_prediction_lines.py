"""Lines of dead runs: found, cut, merged in the list's order; of one clip the best."""

import json
from pathlib import Path

import numpy as np
import pytest

from vlm_crash.data.clip_store import as_keys, clip_key
from vlm_crash.data.prediction_lines import PredictionLines, part_name


def line(video: str, seconds: float = 0.0, status: str = "ok", event: str | None = None) -> str:
    row = {"video": video, "status": status, "provenance": "r", "path": f"/clips/{video}", "source_event": event}
    return json.dumps({**row, "seconds": seconds}) + "\n"


def keys(*videos: str, event: str | None = None) -> np.ndarray:
    return as_keys(b"".join(clip_key(event, f"/clips/{video}") for video in videos))


def merged(folder: Path) -> list[tuple[str, float]]:
    rows = map(json.loads, (folder / "predictions.jsonl").read_text().splitlines())
    return [(row["video"], row["seconds"]) for row in rows]


def test_parts_of_any_number_of_processes_merge_in_the_lists_order(tmp_path):
    (tmp_path / "predictions.jsonl").write_text(line("b") + line("x"))
    (tmp_path / part_name(0)).write_text(line("d") + line("a"))
    (tmp_path / part_name(5)).write_text(line("c\u2028") + '{"video": "e", "sta')
    lines = PredictionLines(tmp_path)
    assert (len(lines), lines.runs) == (5, {"r": 5})
    wanted = keys("a", "b", "c\u2028", "d", "e")
    assert np.isin(wanted, lines.done(False)).tolist() == [True] * 4 + [False]
    assert lines.of_others(wanted) == 1
    lines.merge(wanted)
    assert [video for video, _ in merged(tmp_path)] == ["a", "b", "c\u2028", "d", "x"]
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.jsonl"]
    inode = (tmp_path / "predictions.jsonl").stat().st_ino
    PredictionLines(tmp_path).merge(wanted)
    assert (tmp_path / "predictions.jsonl").stat().st_ino == inode, "in order already: not written again"


def test_of_two_lines_the_answer_stays_then_the_newer(tmp_path):
    """A run was killed between merging the parts and taking them away, or two did the same clip."""
    (tmp_path / "predictions.jsonl").write_text(line("a", 1) + line("b", 1, "failed") + line("c", 1, "failed"))
    (tmp_path / part_name(1)).write_text(line("a", 2) + line("b", 2) + line("c", 2, "failed") + line("a", 3, "failed"))
    PredictionLines(tmp_path).merge(keys("a", "b", "c"))
    assert merged(tmp_path) == [("a", 2), ("b", 2), ("c", 2)]


def test_failed_lines_are_dropped_where_they_are_done_again(tmp_path):
    (tmp_path / "predictions.jsonl").write_text(line("a") + line("b", 0, "failed") + line("other", 0, "failed"))
    lines = PredictionLines(tmp_path)
    assert np.isin(keys("a", "b"), lines.done(retry_failed=True)).tolist() == [True, False]
    lines.merge(keys("a", "b"), drop_failed=True)
    assert [video for video, _ in merged(tmp_path)] == ["a", "other"]


def test_a_clip_of_another_source_is_another_clip(tmp_path):
    (tmp_path / "predictions.jsonl").write_text(line("a", event="crash"))
    lines = PredictionLines(tmp_path)
    assert lines.of_others(keys("a", event="crash")) == 0
    assert lines.of_others(keys("a")) == 1


def test_a_half_line_is_cut(tmp_path):
    whole = tmp_path / "predictions.jsonl"
    whole.write_text(line("a") + line("b")[:-1])
    lines = PredictionLines(tmp_path)
    assert lines.halves == {whole: len(line("a"))}
    lines.cut()
    assert whole.read_text() == line("a")


def test_nothing_is_there(tmp_path):
    lines = PredictionLines(tmp_path)
    assert len(lines) == 0 and not np.isin(keys("a"), lines.done(False)).any()
    lines.merge(keys("a"))
    assert list(tmp_path.iterdir()) == []


def test_whole_lines_that_are_no_predictions(tmp_path):
    (tmp_path / "predictions.jsonl").write_text(line("a") + "\0\0\n" + "[]\n" + '{"video": "b"}\n')
    with pytest.raises(ValueError, match="take these lines out") as caught:
        PredictionLines(tmp_path)
    assert [f"line {number}: not a prediction" in str(caught.value) for number in (1, 2, 3, 4)] == [False] + [True] * 3
