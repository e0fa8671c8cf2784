"""A scan's files: each recording's have names of their own, other runs let them be, and what is old of them goes."""

import json
import os
from pathlib import Path

import pytest

from vlm_crash.callbacks.predictions import PredictionWriter
from vlm_crash.callbacks.scan import ScanWriter
from vlm_crash.callbacks.scan_events import ScanSettings
from vlm_crash.callbacks.scan_files import clear_scan, clip_stems, refuse_scan, with_stems
from vlm_crash.callbacks.scan_lines import failed_line
from vlm_crash.callbacks.scan_sources import told_files
from vlm_crash.callbacks.whole_lines import WholeLines
from vlm_crash.schema.records import VideoSample


def recording(path):
    return VideoSample(str(path), Path(path).name, Path(path), None, None, None)


def writer_of(folder, recordings, settings=None):
    """As `setup` leaves one, of an empty folder."""
    writer = ScanWriter(folder, settings or ScanSettings())
    writer.recordings, writer._background, writer._run_id = recordings, "ordinary", "run-6-1"
    told = [[recording.id, str(recording.path), 1] for recording in recordings]
    writer._stems = {name: stem for name, _, _, stem in with_stems(told)}
    writer.curve, writer.answered = WholeLines(folder / "scan_curve.jsonl"), WholeLines(folder / "events.jsonl")
    return writer


def scanned(folder, *recordings):
    """A scan that found nothing, and a file of somebody else's."""
    (folder / "scan_curve.jsonl").write_text("")
    told = [[str(path), str(path), 1] for path in recordings]
    (folder / "run.json").write_text(json.dumps({"run_id": "r-6-1", "scan": {"window_s": 6}, "recordings": told}))
    for name in ("events.jsonl", "events.csv", "recordings.csv", "predictions.jsonl", "mine.csv"):
        (folder / name).write_text("")


def test_no_two_recordings_have_one_clip_file():
    names = ["a.mp4", "a~2.mp4", "a.mp4", "a.mp4", "a~2.mp4", "b.mp4"]
    assert clip_stems(names) == ["a", "a~2", "a~3", "a~4", "a~2~2", "b"]
    assert clip_stems(["a.mp4", "c.mp4", "a~2.mp4"], given=["a", "a~2"]) == ["a~3", "c", "a~2~2"]


@pytest.mark.parametrize("gone", [[], ["scan_curve.jsonl"], ["run.json"]])
def test_predictions_do_not_write_over_a_scan_that_found_nothing(tmp_path, gone):
    scanned(tmp_path, "rec/a.mp4")
    for name in gone:
        (tmp_path / name).unlink()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=r"holds a scan of recordings.*--scan to go on with it, or --overwrite true"):
        PredictionWriter(tmp_path)._look(None, None, [])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_scan_that_is_replaced_goes_and_what_is_of_others_stays(tmp_path):
    scanned(tmp_path, "rec/a.mp4", "rec2/a.mp4")
    (tmp_path / "clips").mkdir()
    own = ["curve_a.png", "curve_a~2.png", "clips/a_001.mp4", "clips/a~2_012.mp4", "clips/a_002.mp4.part"]
    others = ["curve_b.png", "clips/b_001.mp4", "clips/a_1.mp4", "clips/a_001.mp4.txt"]
    for name in own + others:
        (tmp_path / name).write_text("")
    clear_scan(tmp_path)
    kept = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert kept == {*others, "predictions.jsonl", "mine.csv"}
    refuse_scan(tmp_path)
    (tmp_path / "events.jsonl").write_text("")  # not a scan's, where there is none
    clear_scan(tmp_path)
    assert (tmp_path / "events.jsonl").exists()


def test_lines_of_recordings_that_failed_say_which_run_they_are_of(tmp_path):
    broken = recording("rec/broken.mp4")
    writer = writer_of(tmp_path, [broken])
    writer.curve.append([failed_line(broken, "the decoder died by SIGSEGV")])
    assert writer.plan_answers() == [] and writer.finish() == []
    writer.close()
    (line,) = map(json.loads, (tmp_path / "predictions.jsonl").read_text().splitlines())
    assert (line["video"], line["status"], line["provenance"]) == ("broken.mp4", "failed", "run-6-1")


def test_clips_of_events_that_are_none_any_more_go(tmp_path):
    one = recording("rec/a.mp4")
    writer = writer_of(tmp_path, [one])
    (tmp_path / "clips").mkdir()
    for name in ("a_001.mp4", "a_002.mp4", "mine_001.mp4"):
        (tmp_path / "clips" / name).write_text("")
    assert writer.plan_answers() == [] and writer.finish() == []  # the threshold was raised
    writer.close()
    assert [path.name for path in (tmp_path / "clips").iterdir()] == ["mine_001.mp4"]


def test_a_scan_that_begins_anew_keeps_nothing_and_recordings_stay(tmp_path):
    scanned(tmp_path, "rec/a.mp4")
    (tmp_path / "clips").mkdir()
    for name in (
        *("clips/a_001.mp4", "curve_a.png", "predictions.rank001.jsonl", "predictions-00000.parquet"),
        *("crash_results.json", "unknown_results.json", "my_results.json", "predictions-mine.parquet"),
    ):
        (tmp_path / name).write_text("")
    writer = ScanWriter(tmp_path, ScanSettings(), overwrite=True)
    writer.recordings, writer._event_names = [recording("rec/a.mp4")], ("crash", "ordinary")
    writer._look({"run_id": "new", "recordings": [], "files": {}}, 2)
    writer.close()
    there = sorted(path.name for path in tmp_path.iterdir())
    own, others = {"events.jsonl", "run.json", "scan_curve.jsonl"}, {"my_results.json", "predictions-mine.parquet"}
    assert set(there) == {*own, *others, "mine.csv"}
    writer.recordings = [recording(tmp_path / "clips/a_001.mp4")]
    with pytest.raises(ValueError, match="where a scan writes its clips; set --output_dir to another folder"):
        writer._look({}, 2)


def test_a_recording_that_changed_is_forgotten_alone(tmp_path, caplog):
    """It was read to its end, and is another file of the same size by now."""
    out, paths = tmp_path / "out", [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    (out / "clips").mkdir(parents=True)
    recordings = [recording(path) for path in paths]
    for path in paths:
        path.write_bytes(b"12345678")

    def look(**options):
        writer = ScanWriter(out, ScanSettings(), **options)
        writer.recordings = recordings
        try:
            return writer._look({"run_id": "r", **told_files(recordings)}, 1)
        finally:
            writer.close()

    assert look().first == {str(path): 0 for path in paths}
    windows = [{"recording": str(path), "window": 0, "probability": 0.9, "error": None} for path in paths]
    windows = [window | {"is_last": True} for window in windows]
    events = [{"key": [str(path), 1], "clip": f"{path.stem}_001.mp4", "prediction": {}} for path in paths]
    for name, lines in (("scan_curve.jsonl", windows), ("events.jsonl", events)):
        (out / name).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    made = [out / name for name in ("clips/a_001.mp4", "curve_a.png", "clips/b_001.mp4", "curve_b.png")]
    for path in made:
        path.write_text("")
    os.utime(paths[1], ns=(1, 10**18))
    assert look().first == dict.fromkeys(map(str, paths))  # touched, and equal
    paths[0].write_bytes(b"abcdefgh")
    os.utime(paths[0], ns=(1, 10**18))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"a\.mp4: 8 bytes -> as many.*--retry_failed true.*out of --data\.clips"):
        look()
    assert {path: path.read_bytes() for path in before} == before
    assert look(retry_failed=True).first == {str(paths[0]): 0, str(paths[1]): None}
    assert "is scanned again from its beginning" in caplog.text
    assert [json.loads(line) for line in (out / "scan_curve.jsonl").read_text().splitlines()] == windows[1:]
    assert [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()] == events[1:]
    assert [path.exists() for path in made] == [False, False, True, True]
    assert look().first == {str(paths[0]): 0, str(paths[1]): None}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("run.json", '{"run_id":\n', r"run\.json, line 2 is not JSON"),
        ("run.json", "[]", r"run\.json holds no JSON object"),
        ("scan_curve.jsonl", '{"recording"\n{}\n', r"scan_curve\.jsonl, line 1 is not JSON.*all lines behind it"),
        ("scan_curve.jsonl", "{}\n", r"scan_curve\.jsonl, line 1 is no object with recording, window"),
        ("events.jsonl", "\xff\n", r"events\.jsonl, line 1 is not JSON.*all lines behind it"),
    ],
)
def test_what_is_broken_is_named(tmp_path, name, content, said):
    scanned(tmp_path, "rec/a.mp4")
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    writer = ScanWriter(tmp_path, ScanSettings())
    writer.recordings = [recording("rec/a.mp4")]
    with pytest.raises(ValueError, match=rf"{said}.*--overwrite true"):
        writer._look({"run_id": "r-6-1", **told_files(writer.recordings)}, 2)
    assert (tmp_path / name).read_bytes() == content.encode("latin-1")
    writer.close()
