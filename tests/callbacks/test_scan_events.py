"""The curve of each recording becomes events: each is answered by a window that shows it, and has a clip of its own."""

from pathlib import Path

import pytest

from vlm_crash.callbacks.scan_events import ScanSettings, scan_events
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
    (event,) = scan_events([recording("a.mp4")], lines, settings, "ordinary")
    assert (event.asked, event.event) == (("a.mp4", asked), "crash")
    assert event.peak.start_s < event.peak.peak_s < event.peak.end_s == curve[-1][1]
    assert event.clip_end_s == round(curve[-1][1], 3)
