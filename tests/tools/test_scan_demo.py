"""tools/scan_demo.py: every true event and every alarm counts once; the intervals are those of the tables."""

import json

import pytest
from benches import scan_figures


def true(moment_s, video="1.mp4", event="crash"):
    return {"video": video, "event": event, "moment_s": str(moment_s), "Weather": "Clear"}


def alarm(start_s, end_s, recording="1.mp4", event="crash"):
    times = {"start_s": str(start_s), "end_s": str(end_s), "peak_s": str((start_s + end_s) / 2)}
    return {"recording": recording, "event": event, "record": '{"Weather": "Clear"}', **times}


def test_events_and_alarms_are_paired_one_to_one():
    truth = [true(10), true(50), true(12, "2.mp4")]
    alarms = [alarm(8, 13), alarm(11, 14), alarm(20, 30), alarm(8, 13, "2.mp4")]
    pairs, left = scan_figures.paired(truth, alarms)
    assert [(t["video"], t["moment_s"], e["start_s"]) for t, e in pairs] == [("1.mp4", "10", "8"), ("2.mp4", "12", "8")]
    assert [event["start_s"] for event in left] == ["11", "20"]


def test_figures_count_what_was_missed_and_what_was_not_there():
    found = scan_figures.figures(
        [true(10), true(50)], [alarm(9, 12, event="nearmiss"), alarm(70, 80)], [{"seconds": "1800"}]
    )
    assert (found["num_events"], found["num_found"], found["recall"]) == (2, 1, 0.5)
    assert (found["false_alarms"], found["false_alarms_per_hour"]) == (1, 2.0)
    assert (found["event_right"], found["fields_asked"], found["median_error_s"]) == (0, 0, 0.5)


def test_intervals():
    assert scan_figures.wilson(9, 10) == pytest.approx((0.596, 0.982), abs=1e-3)
    assert scan_figures.wilson(10, 10)[1] == 1.0
    assert scan_figures.poisson(0) == pytest.approx((0.0, 3.689), abs=1e-3)
    assert scan_figures.poisson(5) == pytest.approx((1.623, 11.668), abs=1e-3)


def test_the_threshold_is_chosen_on_the_drives_to_choose_on(tmp_path):
    """A true event, and a lower false one; a drive that is not scanned to its end does not count."""
    (tmp_path / "val_drives").mkdir()
    (tmp_path / "val_scan").mkdir()
    (tmp_path / "val_drives/drives.csv").write_text("video,event,moment_s\n1.mp4,crash,13.5\n2.mp4,crash,0.5\n")
    high = {**dict.fromkeys(range(11, 17), 0.95), 30: 0.65}
    lines = [
        {"recording": "drives/1.mp4", "start_s": k, "end_s": k + 1, "probability": high.get(k, 0.1), "is_last": k == 40}
        for k in range(41)
    ]
    lines.append({"recording": "drives/2.mp4", "start_s": 0, "end_s": 1, "probability": 0.9, "is_last": False})
    (tmp_path / "val_scan/scan_curve.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    chosen, table = scan_figures.choose(tmp_path)
    assert chosen.threshold == 0.7
    assert scan_figures.counts(tmp_path, "val_drives", "val_scan", chosen) == (1, 1, 0, 41 / 3600)
    assert "      0.6   1/ 1                   87.8  0.667" in table
    assert "      0.7   1/ 1                    0.0  1.000  chosen" in table
