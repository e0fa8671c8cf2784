import json
from pathlib import Path

import pytest

from vlm_crash.data.jsonl import to_line
from vlm_crash.data.parquet import write_predictions
from vlm_crash.evaluation.loading import event_of_file_name, load_predictions, load_truth
from vlm_crash.schema.fields import Schema
from vlm_crash.schema.records import Annotation, VideoSample


@pytest.mark.parametrize(
    ("name", "event"),
    [
        ("AV_nearmiss_modified_r.csv", "nearmiss"),
        ("Near-Miss results.json", "nearmiss"),
        ("crash_results.json", "crash"),
        ("crash_ft.jsonl", "crash"),
    ],
)
def test_event_told_by_the_file_name(schema: Schema, name: str, event: str):
    assert event_of_file_name(Path(name), schema) == event


@pytest.mark.parametrize(
    ("name", "says"), [("truth.csv", "no event"), ("crash_and_nearmiss.csv", "more than one event")]
)
def test_a_name_that_tells_no_single_event_is_refused(schema: Schema, name: str, says: str):
    with pytest.raises(ValueError, match=f"{name}: .*{says}.*allowed are crash, nearmiss"):
        event_of_file_name(Path(name), schema)


def test_files_are_merged_and_a_clip_predicted_twice_is_named(schema: Schema, say, write_lines):
    one = write_lines([say("1.mp4", "crash", {}, "crash")], "a/predictions.jsonl")
    other = write_lines([say("1.mp4", "crash", {}, "nearmiss")], "b/predictions.jsonl")
    assert len(load_predictions([one, other], schema)) == 2  # two clips of one name
    assert len(load_predictions([one, one.parent], schema)) == 1  # one file, named twice
    again = write_lines([say("1.mp4", "nearmiss", {}, "crash")], "c/predictions.jsonl")
    with pytest.raises(
        ValueError, match=r"crash/1\.mp4 is predicted twice: .*a.predictions\.jsonl, line 1.*c.predictions"
    ):
        load_predictions([one, other, again], schema)


def test_a_folder_of_a_run_gives_its_lines_once(schema: Schema, say, write_lines):
    lines = write_lines([say("1.mp4", "crash", {}, "crash")], "run/predictions.jsonl")
    old = [{"video": "1.mp4", "response": "Crash scenario"}]
    (lines.parent / "crash_results.json").write_text(json.dumps(old))
    (loaded,) = load_predictions([lines.parent], schema)
    assert not loaded.told_event
    lines.unlink()
    (loaded,) = load_predictions([lines.parent], schema)
    assert loaded.told_event and loaded.prediction.source_event == "crash"


def test_old_failures_are_failures(schema: Schema, tmp_path: Path):
    texts = ["Failed to load video", "Error: no frames", "Failed: the file is empty (0 bytes)", "- Weather: Clear"]
    texts += ["Error of the driver.\n- Weather: Clear", "Error reading frame 3"]
    rows = [{"video": f"{n}.mp4", "response": text} for n, text in enumerate(texts, start=1)]
    (tmp_path / "crash_results.json").write_text(json.dumps(rows))
    found = [(item.prediction.status, item.prediction.error) for item in load_predictions([tmp_path], schema)]
    assert found == [("ok", None) if "Weather" in text else ("failed", text) for text in texts]


def test_a_byte_order_mark_is_no_text(schema: Schema, say, write_lines, tmp_path: Path):
    """As editors of Windows save it; the first line counts."""
    ours = write_lines([say("1.mp4", "crash", {"Weather": "Rainy"}), say("2.mp4", "crash", {})])
    old = tmp_path / "crash_results.json"
    old.write_text(json.dumps([{"video": "3.mp4", "response": "- Weather: Rainy"}]), encoding="utf-8")
    for path in (ours, old):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert [one.prediction.video for one in load_predictions([ours, old], schema)] == ["1.mp4", "2.mp4", "3.mp4"]


def test_every_bad_line_is_reported_at_once(schema: Schema, say, tmp_path: Path):
    good = json.dumps(say("1.mp4", "crash", {}, "crash").to_json_dict())
    path = tmp_path / "predictions.jsonl"
    path.write_text("\n".join([good, "{broken", '{"video": "2.mp4"}', good.replace('"crash"', '"crush"'), "[1]", ""]))
    with pytest.raises(ValueError, match="line 2: not JSON") as error:
        load_predictions([path], schema)
    assert "line 3: not a prediction" in str(error.value)
    assert "line 5: not a prediction (prediction line: it must be an object" in str(error.value)
    assert "'crush' is not in the schema; allowed: crash, nearmiss" in str(error.value)


def test_a_line_cut_off_by_an_interrupt_is_left_out_and_said(schema: Schema, say, tmp_path: Path, caplog):
    good = json.dumps(say("1.mp4", "crash", {}, "crash").to_json_dict(), ensure_ascii=False)
    path = tmp_path / "predictions.jsonl"
    path.write_text(good.replace("1.mp4", "a\u2028b.mp4") + "\n" + good[:40], encoding="utf-8")
    (loaded,) = load_predictions([path], schema)
    assert loaded.prediction.video == "a\u2028b.mp4"
    assert "line 2 is cut off" in caplog.text


@pytest.mark.parametrize("name", ["nothing.jsonl", "nothing"])
def test_what_is_not_there_is_named(schema: Schema, tmp_path: Path, name: str):
    with pytest.raises(FileNotFoundError, match=name):
        load_predictions([tmp_path / name], schema)
    with pytest.raises(FileNotFoundError, match=name):
        load_truth([tmp_path / name], schema)


def test_empty_folders_and_other_suffixes_are_refused(schema: Schema, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"neither predictions\.jsonl"):
        load_predictions([tmp_path], schema)
    with pytest.raises(FileNotFoundError, match=r"neither <event>_ft\.jsonl"):
        load_truth([tmp_path], schema)
    (tmp_path / "crash.txt").touch()
    with pytest.raises(ValueError, match=r"\.txt"):
        load_predictions([tmp_path / "crash.txt"], schema)
    with pytest.raises(ValueError, match=r"\.txt"):
        load_truth([tmp_path / "crash.txt"], schema)


def _prepared(folder: Path, schema: Schema) -> Path:
    folder.mkdir()
    data, assign = {}, {}
    for event in schema.event_names:
        samples = [
            VideoSample(
                f"{event}_{n}", f"{n}.mp4", folder / f"{n}.mp4", event, Annotation.of(schema, event, {"Lanes": n}), 4.0
            )
            for n in range(1, 5)
        ]
        lines = [to_line(sample, schema, "What happened?") for sample in samples]
        (folder / f"{event}_ft.jsonl").write_text("\n".join(lines) + "\n")
        data[event] = {"annotation": f"{event}_ft.jsonl", "root": str(folder), "video_read_type": "decord"}
        assign |= {sample.id: "test" if sample.video == "4.mp4" else "train" for sample in samples}
    (folder / "diy_ft_data.json").write_text(json.dumps(data))
    (folder / "splits.json").write_text(json.dumps({"assign": assign}))
    return folder


def test_truth_of_a_prepared_folder_whole_or_one_split(schema: Schema, tmp_path: Path):
    folder = _prepared(tmp_path / "data", schema)
    assert len(load_truth([folder], schema)[0]) == 8
    test, _ = load_truth([folder], schema, split="test")
    assert [(sample.event, sample.video) for sample in test] == [("crash", "4.mp4"), ("nearmiss", "4.mp4")]
    one_event, _ = load_truth([folder / "nearmiss_ft.jsonl"], schema, split="test")
    assert [sample.event for sample in one_event] == ["nearmiss"]
    with pytest.raises(ValueError, match=r"split='exam' is not a split of .*allowed: train, val, test"):
        load_truth([folder], schema, split="exam")


def test_a_prepared_folder_is_what_its_data_file_names(schema: Schema, tmp_path: Path):
    """Also where a file of another event lies there, from an earlier run: training does not see it either."""
    for event in schema.event_names:
        sample = VideoSample(
            id=f"{event}_1", video="1.mp4", path=tmp_path / "1.mp4", event=event,
            annotation=Annotation.of(schema, event, {}), duration_s=2.0,
        )  # fmt: skip
        (tmp_path / f"{event}_ft.jsonl").write_text(to_line(sample, schema, "What?") + "\n")
    (tmp_path / "diy_ft_data.json").write_text(json.dumps({"crash": {"annotation": "crash_ft.jsonl", "root": "."}}))
    samples, _ = load_truth([tmp_path], schema)
    assert [sample.id for sample in samples] == ["crash_1"]


def test_a_split_needs_a_prepared_dataset(schema: Schema, write_csv):
    path = write_csv("crash", {"1.mp4": {"Lanes": "2"}})
    with pytest.raises(ValueError, match=r"split='test' needs a prepared dataset.*leave split out"):
        load_truth([path], schema, split="test")


def test_a_clip_with_two_truths_is_named(schema: Schema, write_csv):
    paths = [write_csv("crash", {"1.mp4": {"Lanes": "2"}}, name) for name in ("crash.csv", "more_crash.csv")]
    with pytest.raises(ValueError, match=r"crash/1\.mp4 has more than one truth"):
        load_truth(paths, schema)


def test_parquet_is_read_as_lines_are(schema: Schema, say, write_lines, tmp_path: Path):
    pytest.importorskip("pyarrow")
    lines = write_lines(
        [say("1.mp4", "crash", {"Lanes": "2"}, "crash"), say("2.mp4", "nearmiss", {}, None)], "a/predictions.jsonl"
    )
    folder = tmp_path / "b"
    folder.mkdir()
    write_predictions(lines.read_bytes().splitlines(keepends=True), folder, rows_per_file=1)
    one, other = load_predictions([lines], schema), load_predictions([folder], schema)
    assert [item.prediction for item in one] == [item.prediction for item in other]
    assert other[1].where == f"{folder}/predictions-00001.parquet, row 1"


def test_rows_and_cells_of_the_truth_that_are_not_used_are_counted_apart(schema: Schema, write_csv):
    rows = {"1.mp4": {"Lanes": "many", "Weather": "Jam"}, "2.mp4": {"Lanes": "2", "Weather": "Jam"}, "3.mp4": {}}
    path = write_csv("crash", {**rows, "4.mp4": {"Lanes": "3"}})
    samples, unused = load_truth([path], schema)
    assert [sample.video for sample in samples] == ["2.mp4", "4.mp4"]
    assert (unused.num_rows, unused.num_cells) == (2, 1)  # all cells of 1.mp4 go with its row
