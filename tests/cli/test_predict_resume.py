"""`predict` stopped at any moment and started again: every clip once, in the list's order, of one run only."""

import fcntl
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cli.conftest import PATIENCE_S, QUICK, begin
from vlm_crash.callbacks.folder_lock import LOCK
from vlm_crash.data import dataset
from vlm_crash.lightning_module import CrashVLM

NUM_CLIPS = 9
BATCH = "vlm_crash.callbacks.predictions.PredictionWriter.on_predict_batch_end"


@pytest.fixture(scope="module")
def clip_list(demo_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine clips, one of them not there, in a list that names one twice."""
    folder = tmp_path_factory.mktemp("list")
    for number in range(1, NUM_CLIPS + 1):
        if number != 4:
            (folder / f"{number}.mp4").symlink_to(demo_clips / "crash" / f"{number % 10 + 1}.mp4")
    (folder / "list.csv").write_text("row,video\n" + "".join(f"x,{n}.mp4\n" for n in [*range(1, NUM_CLIPS + 1), 2]))
    return folder / "list.csv"


@pytest.fixture(scope="module")
def arguments(tiny_model: Path, clip_list: Path) -> list[str]:
    return ["predict", *QUICK, "--model.path", str(tiny_model), "--data.clips", str(clip_list)]


@pytest.fixture
def predict(say: Callable[..., tuple[int, str]], arguments: list[str], tmp_path: Path) -> Callable[..., str]:
    """Predict into a folder, to the end or as far as the options let it."""

    def run(*options: object) -> str:
        code, error = say(*arguments, "--output_dir", tmp_path / "p", *options)
        assert code == 0, error
        return error

    return run


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


def names(out: Path) -> list[str]:
    return [line["video"] for line in lines(out)]


ALL = [f"{number}.mp4" for number in range(1, NUM_CLIPS + 1)]


def killed_after(num_batches: int, *arguments: object) -> int:
    """SIGKILL for the first process alone, after so many of its batches; its session, which others are of, too."""
    process = begin(*arguments, signal_after=(BATCH, num_batches, signal.SIGKILL))
    said = process.communicate(PATIENCE_S)[0]
    assert process.returncode == -signal.SIGKILL, said
    return process.pid


def ended(session: int) -> bool:
    """Whether no process of a session is left, before long."""
    patient_until = time.monotonic() + PATIENCE_S
    while time.monotonic() < patient_until:
        alive = [p for p in psutil.process_iter(["status"]) if p.info["status"] != psutil.STATUS_ZOMBIE]
        if not any(_session(process.pid) == session for process in alive):
            return True
        time.sleep(0.1)
    return False


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def test_killed_on_one_process_then_on_two_then_ended(predict, arguments, tmp_path):
    out = tmp_path / "p"
    killed_after(2, *arguments, "--data.num_workers", "1", "--output_dir", out)
    assert names(out) == ALL[:2]
    with (out / "predictions.jsonl").open("a") as file:
        file.write('{"video": "5.m')  # killed while it wrote
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    assert ended(killed_after(1, *arguments, *two, "--output_dir", out)), "the other process ends, too"
    assert list(out.glob("predictions.rank*.jsonl"))
    assert names(out) == ALL[:2], "parts are not merged before the end"
    predict()
    assert names(out) == ALL
    assert [line["video"] for line in lines(out) if line["status"] == "failed"] == ["4.mp4"]
    assert not list(out.glob("predictions.rank*")) and not (out / LOCK).exists()
    assert sum(len(json.loads(path.read_text())) for path in out.glob("*_results.json")) == NUM_CLIPS
    run = json.loads((out / "run.json").read_text())
    assert {line["provenance"] for line in lines(out)} == {run["run_id"]}
    assert len(run["resumed"]) == 2


def test_a_part_then_the_rest_in_other_batches(predict, monkeypatch, caplog, tmp_path):
    """What cannot change an answer stops nothing; the finished clips are not done again."""
    out = tmp_path / "p"
    predict("--trainer.limit_predict_batches", 5)
    assert names(out) == ALL[:5]
    before = lines(out)
    answered = []
    plain = CrashVLM.answer

    def watched(self: CrashVLM, batch: Any) -> Any:
        answered.extend(sample.video for sample in batch.samples)
        return plain(self, batch)

    monkeypatch.setattr(CrashVLM, "answer", watched)
    with (out / "predictions.jsonl").open("a") as file:
        file.write('{"video": "6.mp4", "ev')
    with caplog.at_level("INFO"):
        predict("--data.batch_size", 3, "--data.num_workers", 1)
    assert "predictions.jsonl: line 6 is cut off (a run was killed); it is taken out" in caplog.text
    assert "5 of 9 clips are answered already" in caplog.text
    assert "1 clips are given more than once and done once: again in" in caplog.text
    assert "list.csv, row 10" in caplog.text
    assert answered == ALL[5:]
    assert names(out) == ALL and lines(out)[:5] == before
    with caplog.at_level("INFO"):
        predict()
    assert "nothing is left to do (9 clips)" in caplog.text
    assert answered == ALL[5:]


def test_lines_of_another_run_are_refused(predict, wrong, arguments, tiny_model, tmp_path):
    out = tmp_path / "p"
    predict("--trainer.limit_predict_batches", 1)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    again = [*arguments, "--output_dir", out]
    said = wrong(*again, "--model.max_new_tokens", 13, "--data.num_frames", 3)
    assert "what differs, old -> new: model.max_new_tokens: 12 -> 13; sampling.num_frames: 2 -> 3. " in said
    assert "set --output_dir to another folder, or --overwrite true" in said
    said = wrong(*again, "--data.clips", tiny_model.parent / "nothing", "--data.crash_dir", arguments[-1])
    assert "there is no clip or folder" in said or "no such folder" in said
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    predict("--model.max_new_tokens", 13, "--overwrite", "true", "--trainer.limit_predict_batches", 2)
    assert names(out) == ALL[:2]


def test_lines_of_other_clips(predict, wrong, arguments, clip_list, caplog, tmp_path):
    """A longer list goes on; one that has nothing in common with the lines is another task."""
    out = tmp_path / "p"
    predict("--data.clips", clip_list.parent / "1.mp4")
    said = wrong(*arguments, "--output_dir", out, "--data.clips", clip_list.parent / "2.mp4")
    assert "holds predictions already, of 1 other clips, none of which is asked for now" in said
    both = json.dumps([str(clip_list.parent / name) for name in ("2.mp4", "1.mp4")])
    predict("--data.clips", both)
    assert names(out) == ["2.mp4", "1.mp4"]
    predict("--data.clips", clip_list.parent / "1.mp4")
    assert "1 lines of clips that are not asked for now are kept" in caplog.text
    assert names(out) == ["2.mp4", "1.mp4"]
    (out / "run.json").write_text("{")
    said = wrong(*arguments, "--output_dir", out, "--data.clips", both)
    assert "run.json, line 1 is not JSON" in said and "remove it (the answers know which run they are of)" in said
    (out / "run.json").unlink()
    predict("--data.clips", both)
    assert json.loads((out / "run.json").read_text())["finished"]["format"] == "jsonl"


def test_failed_clips_are_done_again_where_it_is_asked(predict, demo_clips, caplog, tmp_path):
    out, clips = tmp_path / "p", tmp_path / "clips"
    clips.mkdir()
    (clips / "1.mp4").symlink_to(demo_clips / "crash" / "1.mp4")
    (clips / "2.mp4").symlink_to(clips / "gone")
    predict("--data.clips", clips)
    assert [line["status"] for line in lines(out)] == ["ok", "failed"]
    (clips / "gone").symlink_to(demo_clips / "crash" / "2.mp4")
    with caplog.at_level("INFO"):
        predict("--data.clips", clips)
    assert "1 of the lines say failed; --retry_failed true does them again" in caplog.text
    assert lines(out)[1]["status"] == "failed"
    first = lines(out)[0]
    predict("--data.clips", clips, "--retry_failed", "true")
    assert [line["status"] for line in lines(out)] == ["ok", "ok"]
    assert lines(out)[0] == first


def test_a_full_disk_then_space(predict, arguments, tmp_path):
    """A real limit of the system: a file may grow to 30 KiB."""
    out = tmp_path / "p"
    process = begin(*arguments, "--output_dir", out, file_limit_kib=30)
    error = process.communicate(PATIENCE_S)[0]
    assert process.returncode == 2, error
    assert f"error: {out / 'predictions.jsonl'}: cannot write (" in error.splitlines()[-1]
    done = len(names(out))
    assert 0 < done < NUM_CLIPS
    predict()
    assert names(out) == ALL


def test_two_runs_do_not_write_into_one_folder(wrong, arguments, tmp_path):
    out = tmp_path / "p"
    out.mkdir()
    context = multiprocessing.get_context("fork")
    is_held, may_end = context.Event(), context.Event()

    def hold() -> None:
        with (out / LOCK).open("wb") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            is_held.set()
            may_end.wait(PATIENCE_S)

    holder = context.Process(target=hold)
    holder.start()
    assert is_held.wait(PATIENCE_S)
    assert "another run writes into" in wrong(*arguments, "--output_dir", out)
    may_end.set()
    holder.join()
    assert [path.name for path in out.iterdir()] == [LOCK]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_workers_read_the_next_clips_while_the_model_works(predict, monkeypatch, tmp_path, num_workers):
    plain_read, plain_step = dataset.read_frames, CrashVLM.predict_step
    seen: list[bool] = []

    def read(path: Path, *options: Any, **more: Any) -> Any:
        (tmp_path / f"read-{path.name}").touch()
        return plain_read(path, *options, **more)

    def step(self: CrashVLM, batch: Any, batch_idx: int) -> Any:
        if num_workers and not seen:
            ends = time.monotonic() + PATIENCE_S
            while not (tmp_path / "read-2.mp4").exists() and time.monotonic() < ends:
                time.sleep(0.01)
        seen.append((tmp_path / "read-2.mp4").exists())
        return plain_step(self, batch, batch_idx)

    monkeypatch.setattr(dataset, "read_frames", read)
    monkeypatch.setattr(CrashVLM, "predict_step", step)
    predict("--data.num_workers", num_workers, "--trainer.limit_predict_batches", 2)
    assert seen[0] == bool(num_workers)
