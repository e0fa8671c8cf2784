"""What is left of a scan: whole batches stay, failures are kept or tried again, recordings come and go, other files are
not mixed in; and all of it in time that grows with the lines."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from vlm_crash.callbacks.scan import ScanWriter
from vlm_crash.callbacks.scan_events import ScanSettings
from vlm_crash.callbacks.scan_files import with_stems
from vlm_crash.callbacks.scan_lines import by_recording, failed_line, in_order
from vlm_crash.callbacks.scan_resume import all_recordings, is_steady, left_of, new_and_gone, refusal, refused_files
from vlm_crash.callbacks.scan_sources import changed_files, hashed_files, hasher, told_files
from vlm_crash.callbacks.whole_lines import WholeLines
from vlm_crash.schema.records import VideoSample


def line(recording, window, is_last=False, num_moved=0, probability=0.5):
    found = {"recording": recording, "window": window, "is_last": is_last, "num_moved": num_moved}
    return found | {"probability": probability}


def failed(recording):
    return failed_line(VideoSample(recording, Path("a.mp4"), "a.mp4", None, None, None), "the decoder died by SIGSEGV")


@pytest.mark.parametrize(("retry_failed", "first"), [(False, None), (True, 2)])
def test_a_recording_that_failed_is_left_or_read_on(retry_failed, first):
    done = [line("a", number) for number in range(4)] + [line("a", 4, is_last=True)]
    broken = [line("b", number) for number in range(3)] + [failed("b")]
    torn = [line("c", 0), line("c", 1), line("c", 4, num_moved=3)]
    left = left_of("abcd", done + broken + torn, 2, retry_failed)
    assert left.first == {"a": None, "b": first, "c": 2, "d": 0}
    assert left.lines == done + (broken[:2] if retry_failed else broken) + torn[:2]
    assert left.failed == ([] if retry_failed else ["b"])
    assert left.unsteady == set()
    assert left_of("c", [*torn, line("c", 5)], 2, retry_failed).unsteady == {"c"}


def test_what_the_lines_say_of_the_time_stamps():
    assert is_steady([line("a", 0), line("a", 1, is_last=True)]) is True
    assert is_steady([line("a", 0), line("a", 1, is_last=True, num_moved=1)]) is False
    assert is_steady([line("a", 0)]) is None
    assert is_steady([line("a", 0), failed("a")]) is None
    assert is_steady([]) is None


def test_windows_without_a_probability_are_judged_again_and_nothing_else():
    lines = [line("a", number, number == 6, probability=None if number in (3, 4) else 0.1) for number in range(7)]
    begun = [line("b", number, probability=None if number == 3 else 0.1) for number in range(6)]
    kept = left_of("ab", lines + begun, 2, retry_failed=False)
    assert (kept.first, kept.only, kept.lines) == ({"a": None, "b": 6}, {}, lines + begun)
    left = left_of("ab", lines + begun, 2, retry_failed=True)
    assert (left.first, left.only) == ({"a": 2, "b": 2}, {"a": frozenset({3, 4})})
    assert left.lines == lines + begun[:2]  # what was judged of a whole recording stays until there is better
    again = [line("a", number, probability=0.9) for number in (2, 3, 4, 5)]
    judged = by_recording([*lines, *again, failed("a")])["a"]
    assert [one["probability"] for one in judged] == [0.1, 0.1, 0.1, 0.9, 0.9, 0.1, 0.1, None]
    assert left_of("a", judged, 2, retry_failed=False).failed == ["a"]
    assert left_of("a", judged, 2, retry_failed=True).first == {"a": None}


def run(sizes, run_id="r", **facts):
    return {"run_id": run_id, "recordings": [[name, f"rec/{name}.mp4", size] for name, size in sizes.items()], **facts}


def test_a_refusal_says_what_differs():
    lines = [line("a", 0, is_last=True), line("b", 0), failed("b")]
    old = run({"a": 1, "b": 2, "c": 3}, scan={"window_s": 6.0}, sampling={"num_frames": 8})
    assert refusal(old, run({"a": 1, "b": 2}), lines) is None
    other = run({"a": 1}, "other", scan={"window_s": 4.0}, sampling={"num_frames": 2})
    what = "what differs, old -> new: sampling.num_frames: 8 -> 2; scan.window_s: 6.0 -> 4.0"
    assert refusal(old, other, lines).endswith(what)
    assert "its run.json does not say" in refusal(run({"a": 1}), run({"a": 1}, "other"), lines)
    assert "no run.json to say what judged them" in refusal(None, run({"a": 1}), lines)
    assert refusal(None, run({"a": 1}), []) is None
    strangers = "a scan of 3 other recordings (a.mp4, b.mp4, c.mp4), none of which is asked for now"
    assert refusal(old, run({"d": 1}), lines) == strangers
    changed = changed_files(old, run({"a": 1, "b": None, "c": 4}), str)  # nothing was read of c
    assert changed == {"b": "rec/b.mp4: 2 bytes -> no file", "c": "rec/c.mp4: 3 bytes -> 4 bytes"}
    assert refused_files(changed, lines, True) is None
    said = refused_files(changed, lines, False)
    assert "1 files that have changed since (old -> new: rec/b.mp4: 2 bytes -> no file); --retry_failed true" in said
    assert "leave them out of --data.clips" in said
    assert refused_files({"c": changed["c"]}, lines, False) is None


def test_a_file_of_equal_size_is_told_by_its_hash(tmp_path):
    paths = [tmp_path / name for name in ("same.mp4", "touched.mp4", "other.mp4", "gone.mp4")]
    for path in paths[:3]:
        path.write_bytes(b"12345678")
    recordings = [VideoSample(path.stem, path.name, path, None, None, None) for path in paths]
    old = told_files(recordings)
    unhashed = json.loads(json.dumps(old))  # its hash could not be computed
    old["files"] = hashed_files(None, old, {}, hasher(recordings, None))
    assert old["files"]["same"]["sha256"] == hashlib.sha256(b"12345678").hexdigest()
    assert old["files"]["gone"] == {"mtime_ns": None, "sha256": None}
    paths[2].write_bytes(b"abcdefgh")
    for path in paths[1:3]:
        os.utime(path, ns=(1, 10**18))
    now, looked = told_files(recordings), []
    hash_of = hasher(recordings, 60.0)

    def counted(name):
        looked.append(name)
        return hash_of(name)

    changed = changed_files(old, now, counted)
    assert changed == {"other": f"{paths[2]}: 8 bytes -> as many, of another content"}
    assert looked == ["touched", "other"]  # what has its time stamp is not read
    files = hashed_files(old, now, changed, hash_of)
    assert files["touched"] == {"mtime_ns": 10**18, "sha256": old["files"]["same"]["sha256"]}
    assert files["other"]["sha256"] == hashlib.sha256(b"abcdefgh").hexdigest()
    assert hashed_files(old, told_files(recordings[:1]), {}, hash_of) == old["files"]  # what is not asked for stays
    assert set(changed_files(unhashed, now, hash_of)) == {"touched", "other"}
    assert changed_files({"recordings": old["recordings"]}, now, hash_of) == {}  # of before time stamps were kept


def test_recordings_come_and_go_and_keep_their_names():
    old = run({"b": 2, "a": 1}) | {"recordings": [["b", "rec/x.mp4", 2], ["a", "rec/a.mp4", 1, "a"]]}
    now = {"run_id": "r", "recordings": [["c", "new/a.mp4", 3], ["a", "rec/a.mp4", 1], ["d", "new/x.mp4", 4]]}
    assert new_and_gone(old, now) == (["a.mp4", "x.mp4"], ["x.mp4"])
    told = all_recordings(old, now)
    assert told == [
        ["b", "rec/x.mp4", 2, "x"], ["a", "rec/a.mp4", 1, "a"], ["c", "new/a.mp4", 3, "a~2"],
        ["d", "new/x.mp4", 4, "x~2"],
    ]  # fmt: skip
    assert all_recordings({"recordings": told}, old | {"recordings": old["recordings"][:1]}) == told
    lines = [line("b", 0, True), line("a", 0), line("a", 1, True)]
    left = left_of(["c", "a", "d"], lines, 2, False)
    assert left.first == {"c": 0, "a": None, "d": 0} and left.lines == [*lines[1:], lines[0]]
    assert in_order(["c", "b"], by_recording(lines)) == lines


class Counted(dict):
    """A line that counts how often something of it is looked at."""

    looks = 0

    def __getitem__(self, key):
        Counted.looks += 1
        return super().__getitem__(key)

    def get(self, key, default=None):
        Counted.looks += 1
        return super().get(key, default)


def looks_of_a_scan(folder, num_recordings):
    """From the lines that are there to the tables, of recordings that failed behind two windows."""
    names = [f"{number}.mp4" for number in range(num_recordings)]
    recordings = [VideoSample(name, name, Path(name), None, None, None) for name in names]
    span = {"start_s": 0.0, "end_s": 6.0, "damage": None, "events": {"crash": 0.9, "ordinary": 0.1}, "error": None}
    writer = ScanWriter(folder, ScanSettings())
    writer.recordings, writer._background = recordings, "ordinary"
    writer._stems = {name: stem for name, _, _, stem in with_stems([[name, name, 1] for name in names])}
    writer.curve, writer.answered = WholeLines(folder / "curve"), WholeLines(folder / "events")
    writer.curve.lines = [
        Counted(one)
        for name in names
        for one in ({**line(name, 0), **span}, {**line(name, 1, probability=0.9), **span}, failed(name))
    ]
    prediction = {"status": "ok", "event": "crash", "fields": {}}
    Counted.looks = 0
    left_of(names, writer.curve.lines, 2, True)
    asked = writer.plan_answers()
    assert len(asked) == num_recordings
    for window in asked:
        (event,) = writer._unanswered.pop((window.id, window.window))
        writer.answered.lines.append(Counted(key=list(event.key), clip=None, prediction=prediction))
    assert writer.plan_answers() == [] and len(writer.finish()) == num_recordings
    writer.close()
    return Counted.looks


def test_the_work_grows_with_the_recordings_not_with_their_square(tmp_path):
    few, many = (looks_of_a_scan(tmp_path, number) for number in (5, 20))
    assert many == 4 * few
