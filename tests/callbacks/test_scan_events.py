"""The curve of each recording becomes events: each is answered by a window that shows it, and has a clip of its own."""

from pathlib import Path

import pytest

from vlm_crash.callbacks.scan_events import ScanSettings, scan_events
from vlm_crash.callbacks.scan_lines import by_recording, curve_line
from vlm_crash.callbacks.scan_tables import recording_rows
from vlm_crash.data.recordings import window_sample
from vlm_crash.schema.records import VideoSample


def recording(path):
    return VideoSample(path, Path(path).name, Path(path), None, None, None)


def line(name, window, start_s, end_s, probability):
    events = None if probability is None else {"crash": probability, "ordinary": 1 - probability}
    return {
        "recording": name, "window": window, "start_s": start_s, "end_s": end_s, "probability": probability,
        "events": events,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("curve", "settings", "asked"),
    [
        ([(k, k + 6.0, k / 20) for k in range(15)] + [(14.3, 20.3, 1.0)], ScanSettings(), 15),
        ([(0.0, 0.033333, 0.99)], ScanSettings(3.0, 3.0), 0),
    ],
)
def test_the_end_of_a_recording_is_answered_by_its_last_window(curve, settings, asked):
    lines = [line("a.mp4", number, *window) for number, window in enumerate(curve)]
    (event,) = scan_events([recording("a.mp4")], {"a.mp4": lines}, {"a.mp4": "a"}, settings, "ordinary")
    assert (event.asked, event.event) == (("a.mp4", asked), "crash")
    assert event.peak.start_s < event.peak.peak_s < event.peak.end_s == curve[-1][1]
    assert event.clip_end_s == round(curve[-1][1], 3)


@pytest.mark.parametrize(
    ("damage", "said"), [(None, ""), ("3 packets cannot be decoded", "3 packets cannot be decoded; ")]
)
def test_windows_that_were_not_judged_are_a_problem_of_their_recording(damage, said):
    one = recording("a.mp4")
    found = [{"crash": 0.25, "ordinary": 0.75}, "not finite: first in model.head", "not finite: first in model.neck"]
    windows = [
        window_sample(one, window=number, start_s=number, end_s=number + 6.0, is_last=number == 2)
        for number in range(3)
    ]  # fmt: skip
    lines = [curve_line(window, what, "ordinary") for window, what in zip(windows, found, strict=True)]
    assert [(line["probability"], line["error"]) for line in lines] == [
        (0.25, None),
        (None, found[1]),
        (None, found[2]),
    ]
    lines[-1]["damage"] = damage
    (row,) = recording_rows([one], by_recording(lines), [])
    assert (row["status"], row["windows_without_probability"]) == ("incomplete", 2)
    assert row["problem"] == f"{said}2 of 3 windows without a probability: not finite: first in model.head"
    judged = [curve_line(window, found[0], "ordinary") for window in windows]
    (row,) = recording_rows([one], by_recording([*lines, *judged, *lines]), [])
    assert (row["status"], row["windows"], row["windows_without_probability"]) == ("ok", 3, 0)
    assert row["problem"] == ""
