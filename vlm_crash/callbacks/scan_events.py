"""A scan's curve becomes its events: which windows are answered, which spans are cut out. Pure.

Enters: the lines of each recording's curve. Leaves: events, numbered through each recording.
Must hold: the same curve and settings give the same events.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlm_crash.callbacks.scan_lines import Line, is_failed
from vlm_crash.schema.records import VideoSample
from vlm_crash.video.peaks import Peak, PeakRule, ScoredWindow, find_peaks

MIN_STRIDE_S = 0.05


@dataclass(frozen=True)
class ScanSettings:
    """How recordings are scanned, and what of the curve is an event.

    Args:
        window_s: seconds that the model sees at once; best as long as the clips that it was trained on.
        stride_s: seconds from one window to the next.
        threshold: least mean probability, over the windows that show a moment, of an event at that moment.
        merge_s: stretches above the threshold with a smaller gap are one event.
        min_distance_s: two events whose peaks are closer are one.
        min_duration_s: a stretch above the threshold that is shorter is no event.
        margin_s: seconds before and after an event that its clip shows as well.
    """

    window_s: float = 6.0
    stride_s: float = 1.0
    threshold: float = 0.5
    merge_s: float = 1.0
    min_distance_s: float = 4.0
    min_duration_s: float = 0.0
    margin_s: float = 1.0

    def __post_init__(self) -> None:
        for name in ("window_s", "stride_s"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name}={getattr(self, name)} is no length; set --scan.{name} to seconds above 0")
        if self.stride_s < MIN_STRIDE_S:
            raise ValueError(
                f"stride_s={self.stride_s} is below {MIN_STRIDE_S} s, and windows would begin as often as a camera "
                f"takes frames; set --scan.stride_s to {MIN_STRIDE_S} or more"
            )
        if self.stride_s > self.window_s:
            raise ValueError(
                f"stride_s={self.stride_s} is above window_s={self.window_s}, so moments between windows would not be "
                "seen; set --scan.stride_s to less"
            )
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold={self.threshold} is not between 0 and 1; set --scan.threshold to a share")
        for name in ("merge_s", "min_distance_s", "min_duration_s", "margin_s"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}={getattr(self, name)} is below 0; set --scan.{name} to 0 or more seconds")

    @property
    def rule(self) -> PeakRule:
        return PeakRule(self.threshold, self.merge_s, self.min_distance_s, self.min_duration_s)


@dataclass(frozen=True)
class ScanEvent:
    """An event of a recording.

    Attributes:
        event: the most probable one in `window`, the background left out.
        window: line of the curve of the window that is answered: the likeliest that shows the peak.
        clip: name of the file that is cut out; clip_start_s, clip_end_s: what it shows.
    """

    recording: VideoSample
    peak: Peak
    event: str
    window: Mapping[str, Any]
    clip: str
    clip_start_s: float
    clip_end_s: float

    @property
    def asked(self) -> tuple[str, int]:
        """The window whose answer is the event's: recording and number."""
        return self.recording.id, self.window["window"]

    @property
    def key(self) -> tuple[Any, ...]:
        """What its answer and its clip depend on."""
        return (self.recording.id, self.window["window"], self.clip, self.clip_start_s, self.clip_end_s)


def scored(curve: Sequence[Mapping[str, Any]]) -> list[ScoredWindow]:
    """The windows of one recording's lines."""
    return [ScoredWindow(line["start_s"], line["end_s"], line["probability"]) for line in curve]


def scan_events(
    recordings: Sequence[VideoSample], curves: Mapping[str, Sequence[Line]], stems: Mapping[str, str],
    settings: ScanSettings, background: str,
) -> list[ScanEvent]:  # fmt: skip
    """Events of all recordings, in their order and in order of time.

    Args:
        curves: by recording (its id), its lines.
        stems: by recording, how the names of its clips begin.
    """
    found: list[ScanEvent] = []
    for recording in recordings:
        curve = [line for line in curves.get(recording.id, ()) if not is_failed(line)]
        windows = scored(curve)
        end_s = max((line["end_s"] for line in curve), default=0.0)
        for number, peak in enumerate(find_peaks(windows, settings.stride_s, settings.rule), 1):
            window = _window_of(peak, curve)
            events = {name: value for name, value in window["events"].items() if name != background}
            found.append(
                ScanEvent(
                    recording, peak, max(events, key=events.__getitem__), window,
                    clip=f"{stems[recording.id]}_{number:03d}.mp4",
                    clip_start_s=round(max(0.0, peak.start_s - settings.margin_s), 3),
                    clip_end_s=round(min(end_s, peak.end_s + settings.margin_s), 3),
                )
            )  # fmt: skip
    return found


def _window_of(peak: Peak, curve: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The likeliest window that shows the peak; of equal ones, the one in whose middle it lies."""
    showing = [
        line for line in curve
        if line["probability"] is not None and line["start_s"] - 1e-6 <= peak.peak_s <= line["end_s"] + 1e-6
    ]  # fmt: skip

    def order(line: Mapping[str, Any]) -> tuple[float, float]:
        return (-round(line["probability"], 3), abs((line["start_s"] + line["end_s"]) / 2 - peak.peak_s))

    return min(showing, key=order)
