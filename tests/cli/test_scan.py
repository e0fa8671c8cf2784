"""`predict --scan`: refusals, the whole way on a short drive, a kill in the middle, recordings that cannot be read."""

import csv
import json
import multiprocessing
import operator
import shutil
import signal
import threading
from dataclasses import replace

import pytest

from tests.cli.conftest import PATIENCE_S, begin
from vlm_crash.callbacks.folder_lock import FolderLock
from vlm_crash.demo.clips import encode
from vlm_crash.demo.drive_files import KINDS, write_clips
from vlm_crash.demo.drives import sample_drive
from vlm_crash.video import guarded_windows
from vlm_crash.video.guarded import TIMEOUT_REMEDY
from vlm_crash.video.reader import probe

SIZE = (96, 54)
TINY = [
    "--data.num_frames", "2", "--data.num_workers", "0", "--model.max_new_tokens", "12", "--trainer.accelerator", "cpu",
    "--data.schema", "scan.yaml", "--data.batch_size", "2",
]  # fmt: skip


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    """24 seconds."""
    folder = tmp_path_factory.mktemp("drive")
    found = replace(sample_drive(3, 40.0, 1), fps=10)
    encode(found.pictures(0.0, 24.0, SIZE), folder / "drive.mp4", 10, 3, SIZE)
    return folder / "drive.mp4"


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_schema_without_ordinary_driving_is_refused(wrong, tiny_model, drive, tmp_path):
    out = tmp_path / "out"
    said = wrong("predict", "--scan", "--model.path", tiny_model, "--data.clips", drive, "--output_dir", out,
                 "--trainer.accelerator", "cpu")  # fmt: skip
    assert "--scan asks when something happens" in said and "--data.schema scan.yaml" in said
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--scan.stride_s", "9"], "moments between windows would not be seen; set --scan.stride_s to less"),
        (["--scan.threshold", "1.5"], "threshold=1.5 is not between 0 and 1"),
        (["--scan.stride_s", "1e-9"], "is below 0.05 s, and windows would begin as often as a camera takes frames"),
        (["--scan.window_s", "0"], "window_s=0.0 is no length"),
        (["--scan.margin_s", "-1"], "margin_s=-1.0 is below 0"),
        (["--scan", "--data.tell_event", "true"], "leave --data.tell_event off"),
        (["--scan", "--data.reader", "decord"], "--scan reads by PyAV, and --data.reader is decord"),
        (["--scan", "--trainer.limit_predict_batches", "2"], "a limit would end their curves early"),
        (["--scan", "--predictions_format", "parquet"], "--scan does nothing with --predictions_format"),
    ],
)
def test_settings_that_cannot_be(wrong, tiny_model, drive, tmp_path, options, said):
    assert said in wrong(
        "predict", *options, "--model.path", tiny_model, "--data.clips", drive, "--output_dir", tmp_path / "out", *TINY
    )


def test_other_commands_do_not_scan(wrong, tiny_model, tmp_path):
    out = tmp_path / "out"
    said = wrong("test", "--scan", "--model.path", tiny_model, "--data.folder", tmp_path, "--output_dir", out)
    assert "test does nothing with --scan (acts in predict)" in said


def test_a_scan_that_was_killed_ends_as_one_that_was_not(say, wrong, tiny_model, drive, tmp_path):
    """Killed while there was one recording; a second one has come when it goes on."""
    broken = tmp_path / "broken.mp4"
    broken.write_text("no video")
    # A tiny random model is sure of nothing: the threshold makes everything an event.
    scan = ["predict", "--scan.window_s", "4", "--scan.stride_s", "1", "--scan.threshold", "0.01", "--model.path",
            tiny_model, "--data.clips", f"[{drive},{broken}]", *TINY]  # fmt: skip
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    batch = "vlm_crash.callbacks.scan.ScanWriter.on_predict_batch_end"
    alone = [str(drive) if part == f"[{drive},{broken}]" else part for part in scan]
    process = begin(*alone, "--output_dir", killed, signal_after=(batch, 3, signal.SIGKILL))
    said = process.communicate(PATIENCE_S)[0]
    assert process.returncode == -signal.SIGKILL, said
    curve = killed / "scan_curve.jsonl"
    assert len(lines(curve)) == 6
    assert not (killed / "events.csv").exists()
    with curve.open("a") as file:  # a line that was torn, and one half of a batch
        file.write(json.dumps({**lines(curve)[-1], "window": len(lines(curve))}) + '\n{"recording": "cl')
    assert say(*scan, "--output_dir", killed)[0] == 0
    assert say(*scan, "--output_dir", whole)[0] == 0
    assert lines(curve) == lines(whole / "scan_curve.jsonl")
    for name in ("recordings.csv", "events.csv"):
        assert (killed / name).read_text() == (whole / name).read_text()
    _check_whole_scan(whole)
    said = wrong(*scan, "--scan.stride_s", "2", "--output_dir", whole)
    assert "what differs, old -> new: scan.stride_s: 1.0 -> 2.0; set" in said and "--overwrite true" in said
    _check_windows_are_judged_again([*scan, "--output_dir", killed], say, whole)
    # Another threshold reads the curve again, and no recording.
    judged = [{**line, "probability": line["probability"] and 0.3} for line in lines(curve)]
    curve.write_text("".join(f"{json.dumps(line)}\n" for line in judged))
    assert say(*scan, "--scan.threshold", "0.4", "--output_dir", killed)[0] == 0
    assert (rows(killed / "events.csv"), lines(curve)) == ([], judged)


def _check_windows_are_judged_again(scan, say, whole):
    """Two batches have a window without a probability, as if the model had overflowed; the others are left alone."""
    curve = scan[-1] / "scan_curve.jsonl"
    told, others = lines(curve), {"probability": 0.4321}
    for number, line in enumerate(told[:-1]):
        line |= {"probability": None, "events": None, "error": "not finite"} if number in (5, 12) else {}
        line |= others if number in (2, 8, 16) else {}
    curve.write_text("".join(f"{json.dumps(line)}\n" for line in told))
    assert say(*scan)[0] == 0
    row = rows(scan[-1] / "recordings.csv")[0]
    assert (row["status"], row["problem"]) == ("incomplete", "2 of 21 windows without a probability: not finite")
    assert say(*scan, "--retry_failed", "true")[0] == 0
    assert rows(scan[-1] / "recordings.csv")[0]["status"] == "ok"
    for number, (line, want) in enumerate(zip(lines(curve), lines(whole / "scan_curve.jsonl"), strict=True)):
        assert line == want | (others if number in (2, 8, 16) else {})
    shutil.copy(whole / "scan_curve.jsonl", curve)


def _check_whole_scan(folder):
    """Every moment is judged once, the event is answered and cut out, and what cannot be read says so."""
    curve = lines(folder / "scan_curve.jsonl")
    assert [line["window"] for line in curve] == [*range(21), None]
    for line in curve[:-1]:
        events = line["events"]
        assert sum(events.values()) == pytest.approx(1.0) and list(events) == ["crash", "nearmiss", "ordinary"]
        assert line["probability"] == pytest.approx(1 - events["ordinary"], abs=1e-6)
    (event,) = rows(folder / "events.csv")
    assert (event["recording"], event["event"] in ("crash", "nearmiss"), event["status"]) == ("drive.mp4", True, "ok")
    assert (float(event["clip_start_s"]), float(event["clip_end_s"])) == (0.0, 24.0)
    assert probe(folder / "clips" / event["clip"]).num_frames == 240
    answered, failed = lines(folder / "predictions.jsonl")
    assert (answered["video"], answered["status"]) == (event["clip"], "ok")
    assert (failed["video"], failed["status"]) == ("broken.mp4", "failed") and failed["error"]
    told = {row["recording"]: row for row in rows(folder / "recordings.csv")}
    assert (told["drive.mp4"]["seconds"], told["drive.mp4"]["windows"]) == ("24.000", "21")
    assert (told["broken.mp4"]["status"], told["broken.mp4"]["problem"]) == ("failed", failed["error"])
    assert (folder / "curve_drive.png").stat().st_size > 1000


def test_decoders_that_hang_and_crash_end_their_recordings_alone(say, wrong, tiny_model, drive, tmp_path, monkeypatch):
    """In the middle of two recordings; a third is scanned between them; then one is tried again and one is another."""
    folder, out, whole = tmp_path / "recordings", tmp_path / "out", tmp_path / "whole"
    folder.mkdir()
    for name in ("crashes_13", "good", "hangs_13"):
        shutil.copy(drive, folder / f"{name}.mp4")
    monkeypatch.setattr(guarded_windows, "MODULE", "tests.video.odd_windows")
    monkeypatch.setattr(guarded_windows, "_own", threading.local())
    scan = ["predict", "--scan.window_s", "4", "--scan.stride_s", "2", "--scan.threshold", "0.01", "--model.path",
            tiny_model, "--data.clips", folder, "--data.clip_timeout_s", "4", *TINY]  # fmt: skip
    assert say(*scan, "--output_dir", out)[0] == 0
    reasons = {
        "crashes_13.mp4": "somewhere behind 12.0 s the decoder died by SIGSEGV",
        "good.mp4": None,
        "hangs_13.mp4": f"somewhere behind 12.0 s the decoder took longer than 4 s and was killed; {TIMEOUT_REMEDY}",
    }
    told = {row["recording"]: row for row in rows(out / "recordings.csv")}
    assert {name: row["problem"] or None for name, row in told.items()} == reasons
    assert {name: (row["windows"], row["status"]) for name, row in told.items()} == {
        "crashes_13.mp4": ("5", "failed"), "good.mp4": ("11", "ok"), "hangs_13.mp4": ("5", "failed"),
    }  # fmt: skip
    answered = [(line["video"], line["status"]) for line in lines(out / "predictions.jsonl")]
    assert answered.count(("good_001.mp4", "ok")) == 1
    assert [(name, "failed") for name, reason in reasons.items() if reason] == answered[-2:]
    events = {row["recording"]: row for row in rows(out / "events.csv")}
    assert set(events) == set(reasons)  # what was seen before has its events, too
    # Again: what failed stays, until it is asked for; a file that is another one by now is read from its beginning.
    curve = (out / "scan_curve.jsonl").read_text()
    assert say(*scan, "--output_dir", out)[0] == 0
    assert (out / "scan_curve.jsonl").read_text() == curve
    (folder / "healed").touch()
    with (folder / "hangs_13.mp4").open("ab") as file:
        file.write(bytes(8))
    said = wrong(*scan, "--output_dir", out)
    assert "holds a scan of 1 files that have changed since (old -> new: " in said and "hangs_13.mp4: " in said
    assert say(*scan, "--output_dir", out, "--retry_failed", "true")[0] == 0
    assert say(*scan, "--output_dir", whole)[0] == 0
    for name in ("recordings.csv", "events.csv"):
        assert (out / name).read_text() == (whole / name).read_text()
    key = operator.itemgetter("recording", "window")
    assert sorted(lines(out / "scan_curve.jsonl"), key=key) == sorted(lines(whole / "scan_curve.jsonl"), key=key)
    assert {row["status"] for row in rows(out / "recordings.csv")} == {"ok"}


def test_two_scans_never_write_one_folder(wrong, tiny_model, drive, tmp_path):
    (tmp_path / "out").mkdir()
    context = multiprocessing.get_context("fork")
    is_held, may_end = context.Event(), context.Event()

    def hold() -> None:
        lock = FolderLock(tmp_path / "out")
        lock.take()
        is_held.set()
        may_end.wait(PATIENCE_S)

    other = context.Process(target=hold)
    other.start()
    assert is_held.wait(PATIENCE_S)
    scan = ["predict", "--scan", "--model.path", tiny_model, "--data.clips", drive, *TINY]
    said = wrong(*scan, "--output_dir", tmp_path / "out")
    assert "another run writes into" in said and "set --output_dir to another folder" in said
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".predictions.lock"]
    may_end.set()
    other.join()


def test_a_window_is_treated_as_the_clip_of_its_span(say, wrong, tiny_model, drive, tmp_path):
    """The only window of a recording as long as a window, beside `predict` of the same file as a clip.

    Then another recording of its size lies there.
    """
    from vlm_crash.video.cutting import cut_clip

    cut_clip(drive, 8.0, 12.0, tmp_path / "clip.mp4")
    cut_clip(drive, 2.0, 6.0, tmp_path / "other.mp4")
    files = [(tmp_path / name).read_bytes() for name in ("clip.mp4", "other.mp4")]
    clip, other = (content.ljust(max(map(len, files)), b"\0") for content in files)
    (tmp_path / "clip.mp4").write_bytes(clip)
    common = ["--model.path", tiny_model, "--data.clips", tmp_path / "clip.mp4", *TINY]
    assert say("predict", "--scan.window_s", "4", *common, "--output_dir", tmp_path / "scan")[0] == 0
    assert say("predict", *common, "--output_dir", tmp_path / "clip")[0] == 0
    said = wrong("predict", "--scan.window_s", "4", *common, "--output_dir", tmp_path / "clip")
    assert "holds predictions of clips, and a scan would write over them" in said
    said = wrong("predict", *common, "--output_dir", tmp_path / "scan")
    assert "holds a scan of recordings, and predictions of clips would write over it" in said
    (window,), (clip,) = (lines(tmp_path / name) for name in ("scan/scan_curve.jsonl", "clip/predictions.jsonl"))
    assert window["events"]["crash"] == pytest.approx(clip["event_probability"], rel=0.02)
    (tmp_path / "clip.mp4").write_bytes(other)
    scan = ["predict", "--scan.window_s", "4", *common, "--output_dir", tmp_path / "scan"]
    said = wrong(*scan)
    assert f"clip.mp4: {len(other):,} bytes -> as many, of another content); --retry_failed true forgets" in said
    assert lines(tmp_path / "scan/scan_curve.jsonl") == [window]
    assert say(*scan, "--retry_failed", "true")[0] == 0
    (again,) = lines(tmp_path / "scan/scan_curve.jsonl")
    assert again["is_last"] and again["events"] != window["events"]
    (tmp_path / "scan/run.json").write_text("{")
    assert "run.json, line 1 is not JSON" in wrong(*scan)


def test_fit_predict_evaluate_and_report_with_an_event_without_fields(say, tiny_model, tmp_path):
    write_clips(tmp_path / "clips", dict.fromkeys(KINDS, 4), 0, 1.0)
    csvs, dirs = ({kind: str(tmp_path / f"clips/{kind}{end}") for kind in KINDS} for end in (".csv", ""))
    dataset, model = tmp_path / "dataset", tmp_path / "fit/model"
    schema = ["--schema", "scan.yaml"]
    assert say("prepare", "--event_csvs", json.dumps(csvs), "--event_dirs", json.dumps(dirs), *schema, "--fractions",
               "[0.4,0.3,0.3]", "--out", dataset)[0] == 0  # fmt: skip
    fit = ["--trainer.max_steps", "2", "--model.embedder", "null", "--model.num_validation_answers", "3"]
    assert say("fit", "--model.path", tiny_model, "--data.folder", dataset, *TINY, *fit, "--output_dir",
               tmp_path / "fit")[0] == 0  # fmt: skip
    assert say("predict", "--model.path", model, "--data.folder", dataset, *TINY, "--output_dir",
               tmp_path / "answers")[0] == 0  # fmt: skip
    assert say("evaluate", "--predictions", tmp_path / "answers", "--truth", dataset, "--split", "test", *schema,
               "--embedder", "null", "--out", tmp_path / "scores")[0] == 0  # fmt: skip
    metrics = json.loads((tmp_path / "scores/metrics.json").read_text())
    nothing = metrics["ordinary"]
    assert nothing["num_clips"] > 0 and nothing["fields"] == {}
    assert nothing["mean"]["score"] is None and nothing["mean"]["reasons"]["score"]
    assert nothing["mean"]["n"] == 0
    assert metrics["event"]["n"] == sum(metrics[kind]["num_clips"] for kind in KINDS)
    assert set(metrics["event"]["recall"]) == set(KINDS)
    assert say("report", tmp_path / "scores")[0] == 0
    assert "Ordinary driving" in (tmp_path / "scores/report.html").read_text(encoding="utf-8")
