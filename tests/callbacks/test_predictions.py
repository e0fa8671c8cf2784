"""The old scripts' files, and lines that are whole or not there."""

import errno
import json
from io import FileIO
from pathlib import Path

import pytest

from vlm_crash.callbacks.legacy_results import write_legacy_results
from vlm_crash.callbacks.predictions import PredictionWriter
from vlm_crash.callbacks.run_record import weight_files
from vlm_crash.callbacks.whole_lines import append_whole
from vlm_crash.schema.records import Prediction


def prediction(video: str, event: str | None, source_event: str | None, status: str = "ok") -> Prediction:
    error = "cannot be read" if status == "failed" else None
    return Prediction(
        video=video, event=event, event_probability=0.5, fields={}, field_probabilities={}, response=f"about {video}",
        status=status, error=error, seconds=0.1, provenance="run", path=video, source_event=source_event,
    )  # fmt: skip


def test_the_folder_decides_the_file_then_the_answer(tmp_path: Path):
    (tmp_path / "flood_results.json").write_text("[]")  # of an earlier run
    (tmp_path / "lab_results.json").write_text("mine")  # of somebody else
    clips = [
        prediction("a", "nearmiss", "crash"),
        prediction("b", "nearmiss", None),
        prediction("c", None, None),
        prediction("d\u2028", None, "crash", "failed"),
    ]
    lines = (json.dumps(clip.to_json_dict()).encode() for clip in clips)
    statuses = write_legacy_results(lines, tmp_path, ("crash", "nearmiss", "flood"))
    assert statuses == {"ok": 3, "failed": 1}
    files = {
        "crash_results.json": [
            {"video": "a", "response": "about a"},
            {"video": "d\u2028", "response": "Failed: cannot be read"},
        ],
        "nearmiss_results.json": [{"video": "b", "response": "about b"}],
        "unknown_results.json": [{"video": "c", "response": "about c"}],
    }
    assert {path.name for path in tmp_path.iterdir()} == {*files, "lab_results.json"}
    assert (tmp_path / "lab_results.json").read_text() == "mine"
    for name, rows in files.items():
        assert (tmp_path / name).read_text() == json.dumps(rows, ensure_ascii=False, indent=1) + "\n"


def test_half_a_line_is_taken_back(tmp_path: Path):
    class Full(FileIO):
        def write(self, content):
            if self.tell() > 10:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(bytes(content)[:8])

    file = Full(tmp_path / "predictions.jsonl", "w")
    append_whole(file, b"first\n")
    with pytest.raises(OSError, match=r"cannot write \(No space left on device\); free some space") as caught:
        append_whole(file, b"second, longer\n")
    assert caught.value.filename == str(tmp_path / "predictions.jsonl")
    assert (tmp_path / "predictions.jsonl").read_bytes() == b"first\n"


def test_whose_weights_answered(tmp_path: Path):
    """Whatever form they have: another checkpoint is another run."""
    for name in ("model.safetensors", "pytorch_model-00001.bin", "tokenizer.json", "one.ckpt"):
        (tmp_path / name).write_text(name)
    shards = tmp_path / "last.ckpt"
    shards.mkdir()
    for name in (".metadata", "__0_0.distcp", "meta.pt"):
        (shards / name).write_text(name)
    assert weight_files(tmp_path, None) == [tmp_path / "model.safetensors", tmp_path / "pytorch_model-00001.bin"]
    assert weight_files(tmp_path, tmp_path / "one.ckpt") == [tmp_path / "one.ckpt"]
    assert weight_files(tmp_path, shards) == [shards / name for name in (".metadata", "__0_0.distcp", "meta.pt")]
    shards.rename(tmp_path / ".last.ckpt.old")  # killed while it was replaced
    assert weight_files(tmp_path, shards)[0] == tmp_path / ".last.ckpt.old" / ".metadata"


def test_overwrite_takes_our_own_files_alone(tmp_path: Path):
    ours = ["predictions.jsonl", "crash_results.json", "unknown_results.json", "predictions-00000.parquet"]
    others = ["lab_results.json", "predictions-2024.parquet"]
    for name in (*ours, *others):
        (tmp_path / name).write_text("")
    writer = PredictionWriter(tmp_path, overwrite=True)
    writer._events = ("crash", "nearmiss")
    writer._prepare_folder()
    assert {path.name for path in tmp_path.iterdir()} == {*others, "run.json"}


@pytest.mark.parametrize("grown", [False, True])
def test_parquet_files_that_lack_predictions_go(tmp_path: Path, caplog: pytest.LogCaptureFixture, grown: bool):
    lines = [json.dumps(prediction(name, "crash", None).to_json_dict()) + "\n" for name in ("a", "b")]
    (tmp_path / "predictions-00000.parquet").write_text("of the first line")
    (tmp_path / "predictions-2024.parquet").write_text("of somebody else")
    (tmp_path / "run.json").write_text(json.dumps({"finished": {"format": "parquet", "bytes": len(lines[0])}}))
    (tmp_path / "predictions.jsonl").write_text("".join(lines if grown else lines[:1]))
    writer = PredictionWriter(tmp_path)
    writer._finish()
    assert (tmp_path / "predictions-00000.parquet").exists() != grown
    assert (tmp_path / "predictions-2024.parquet").exists()
    assert ("1 Parquet files of an earlier run lacked predictions and were removed" in caplog.text) == grown
