"""The curve of a scanned recording as a picture.

Enters: the windows' probabilities, the events, and, where they are known, the moments of the true ones. Leaves: pixels.
Must hold: every window and every event is drawn; what no window judged is a gap.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from vlm_crash.callbacks.scan_events import ScanEvent, ScanSettings, scored
from vlm_crash.callbacks.scan_files import curve_picture
from vlm_crash.callbacks.scan_lines import Line, is_failed
from vlm_crash.schema.records import VideoSample
from vlm_crash.video.peaks import Peak, ScoredWindow, agreement

WIDTH, HEIGHT, SIZE = 1200, 320, 13
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 14, 46, 36
_CURVE, _WINDOW, _EVENT, _TRUTH, _GREY = (24, 84, 160), (150, 178, 214), (252, 226, 196), (196, 72, 48), (170, 170, 170)


def draw_curves(
    folder: Path, recordings: Iterable[VideoSample], curves: Mapping[str, Sequence[Line]], events: Iterable[ScanEvent],
    stems: Mapping[str, str], settings: ScanSettings,
) -> None:  # fmt: skip
    """A picture for each recording of which a window was judged, named by its stem."""
    peaks = defaultdict(list)
    for event in events:
        peaks[event.recording.id].append(event.peak)
    for recording in recordings:
        if curve := [line for line in curves.get(recording.id, ()) if not is_failed(line)]:
            picture = draw_curve(recording.video, scored(curve), peaks[recording.id], settings)
            picture.save(folder / curve_picture(stems[recording.id]))


def draw_curve(
    title: str, windows: Sequence[ScoredWindow], peaks: Sequence[Peak], settings: ScanSettings,
    moments_s: Sequence[float] | None = None,
) -> Image.Image:  # fmt: skip
    """A dot a window at its middle, the curve over time, events as bands with a line at the peak, true moments below.

    Args:
        moments_s: seconds of the true events; None: they are not known.
    """
    end_s = max(window.end_s for window in windows)
    font = ImageFont.load_default(SIZE)
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)

    def x(time_s: float) -> float:
        return _LEFT + time_s / end_s * (WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return HEIGHT - _BOTTOM - value * (HEIGHT - _TOP - _BOTTOM)

    for peak in peaks:
        draw.rectangle((x(peak.start_s), y(1), x(peak.end_s), y(0)), fill=_EVENT)
        draw.line((x(peak.peak_s), y(1), x(peak.peak_s), y(0)), fill=(230, 150, 60), width=2)
    for value in (0.0, 0.5, 1.0):
        draw.text((8, y(value) - SIZE / 2), f"{value:.1f}", fill="black", font=font)
        draw.line((x(0), y(value), x(end_s), y(value)), fill=(225, 225, 225))
    for at in range(0, WIDTH - _LEFT - _RIGHT, 7):
        line = (_LEFT + at, y(settings.threshold), _LEFT + at + 3, y(settings.threshold))
        draw.line(line, fill=_GREY)
    _draw_seconds(draw, end_s, font)
    for window in windows:
        if window.probability is not None:
            u, v = x((window.start_s + window.end_s) / 2), y(window.probability)
            draw.ellipse((u - 2, v - 2, u + 2, v + 2), fill=_WINDOW)
    before: tuple[float, float] | None = None
    for time_s, mean in agreement(windows, settings.stride_s):
        here = None if mean is None else (x(min(time_s, end_s)), y(mean))
        if before and here:
            draw.line((*before, *here), fill=_CURVE, width=2)
        before = here
    for moment_s in moments_s or ():
        u = x(moment_s)
        draw.polygon([(u, y(0) + 1), (u - 6, y(0) + 13), (u + 6, y(0) + 13)], fill=_TRUTH)
    legend = (
        f"{title}: P(something happens); dots: windows of {settings.window_s:g} s, line: mean of those that show a "
    )
    legend += f"moment, bands: events at {settings.threshold:g} or more"
    draw.text((_LEFT, 8), legend, fill="black", font=font)
    if moments_s is not None:
        draw.text((_LEFT, 24), "red triangles: what truly happened", fill=_TRUTH, font=font)
    return image


def _draw_seconds(draw: ImageDraw.ImageDraw, end_s: float, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> None:
    """A number of seconds every so often along the lower edge."""
    step = next((step for step in (1, 5, 10, 30, 60, 300, 600, 1800, 3600) if end_s / step <= 15), 7200)
    for at in range(0, int(end_s) + 1, step):
        u = _LEFT + at / end_s * (WIDTH - _LEFT - _RIGHT)
        draw.line((u, HEIGHT - _BOTTOM, u, HEIGHT - _BOTTOM + 4), fill="black")
        draw.text((u - 8, HEIGHT - SIZE - 6), f"{at} s" if at == 0 else f"{at}", fill="black", font=font)
