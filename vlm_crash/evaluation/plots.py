"""Calibration of one field -> two plots as SVG texts: reliability, and accuracy by the share that is accepted.

Pure: numbers in, text out. Colours are classes of report.css, so that a plot follows the page into the dark; every text
is escaped. A plot says in words (title, desc) what it shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import escape

WIDTH, HEIGHT = 380, 300
_LEFT, _TOP, _RIGHT, _BOTTOM = 54, 14, 14, 44  # room for the axes
_COUNTS = 46  # height of the bars of counts under a reliability diagram
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
#: Where an axis of accuracy may begin, and its step: a good model's curve would be a flat line on the whole of it.
_FLOORS = ((0.9, 0.025), (0.8, 0.05), (0.5, 0.1), (0.0, 0.25))

Bin = dict[str, Any]


def reliability(name: str, calibration: dict[str, Any], positive: str | None = None) -> str:
    """How often answers of a confidence are right: a bar a bin, the diagonal, and the counts below.

    Args:
        name: of the field, for the title.
        positive: title of the event whose probability the bins are of; None: they are of the answer's.
        calibration: "bins" of low, high, n, confidence, accuracy; "bins_after" the same after the temperature.
    """
    bins = [one for one in calibration["bins"] if one["n"]]
    after = [one for one in calibration.get("bins_after") or () if one["n"]]
    bottom = HEIGHT - _BOTTOM - _COUNTS
    frame = _Frame(_TOP, bottom, 0.0, 1.0)
    most = max((one["n"] for one in bins), default=1)
    said, came = (f"P({positive.lower()})", f"share that is {positive.lower()}") if positive else (
        "confidence of the answer", "accuracy"
    )  # fmt: skip
    parts = [frame.axes(came, 0.25)]
    for one in bins:
        left, right = frame.x(one["low"]) + 1, frame.x(one["high"]) - 1
        what = f"{one['n']} answers, mean {said} {one['confidence']:.3f}, {came} {one['accuracy']:.3f}"
        top, height = frame.y(one["accuracy"]), (_COUNTS - 8) * one["n"] / most
        parts += [
            f"<g><title>{what}</title>{_box(left, top, right, bottom, 'bar')}",
            f"{_box(left, bottom + 6, right, bottom + 6 + max(height, 1), 'count')}",
            f'<circle class="dot" cx="{frame.x(one["confidence"]):.1f}" cy="{top:.1f}" r="3.5"/></g>',
        ]
    parts.append(frame.line([(0, 0), (1, 1)], "ideal"))
    if after:
        points = [(one["confidence"], one["accuracy"]) for one in after]
        parts.append(frame.line(points, "after"))
        parts += [frame.dot(*point, "after", 3.0) for point in points]
    parts.append(_x_axis(frame, HEIGHT - _BOTTOM, said))
    n = sum(one["n"] for one in bins)
    words = f"{n} answers in {len(bins)} bins; on the diagonal, confidence is honest."
    return _svg(f"Reliability of {name}", words, parts)


def risk_coverage(name: str, calibration: dict[str, Any]) -> str:
    """Accuracy of the answers that are accepted, by the share of answers accepted (the most confident first)."""
    points = sorted((one["coverage"], one["accuracy"]) for one in calibration["risk_coverage"])
    operating = calibration.get("operating_point") or {}
    wanted = operating.get("wanted")
    lowest = min([accuracy for _, accuracy in points] + ([wanted] if wanted is not None else []), default=0.0)
    low, step = next((floor, step) for floor, step in _FLOORS if floor <= lowest)
    frame = _Frame(_TOP, HEIGHT - _BOTTOM, low, 1.0)
    parts = [frame.axes("accuracy of what is accepted", step), frame.line(points, "curve")]
    if len(points) == 1:
        parts.append(frame.dot(*points[0], "dot", 3.5))
    words = "The most confident answers are accepted first."
    if wanted is not None:
        parts.append(frame.line([(0, wanted), (1, wanted)], "wanted"))
    coverage, accuracy = operating.get("coverage"), operating.get("accuracy")
    if coverage is not None and accuracy is not None:
        parts += [frame.line([(coverage, frame.low), (coverage, accuracy)], "wanted"),
                  frame.dot(coverage, accuracy, "chosen", 5.5)]  # fmt: skip
        words += f" The point: {100 * coverage:.0f} % accepted, of which {100 * accuracy:.1f} % are right."
    parts.append(_x_axis(frame, HEIGHT - _BOTTOM, "share of answers accepted"))
    return _svg(f"Accuracy by coverage of {name}", words, parts)


class _Frame:
    """Maps shares to pixels: x from 0 to 1, y from `low` to `high`."""

    def __init__(self, top: float, bottom: float, low: float, high: float) -> None:
        self.top, self.bottom, self.low, self.high = top, bottom, low, high

    def x(self, share: float) -> float:
        return _LEFT + share * (WIDTH - _LEFT - _RIGHT)

    def y(self, share: float) -> float:
        return self.bottom - (share - self.low) / (self.high - self.low) * (self.bottom - self.top)

    def axes(self, label: str, step: float) -> str:
        ticks = [self.low + k * step for k in range(round((self.high - self.low) / step) + 1)]
        left, right, digits = f"{self.x(0):.1f}", f"{self.x(1):.1f}", 3 if step < 0.05 else 2
        lines = "".join(
            f'<line class="grid" x1="{left}" x2="{right}" y1="{self.y(tick):.1f}" y2="{self.y(tick):.1f}"/>'
            f'<text x="{self.x(0) - 7:.1f}" y="{self.y(tick) + 4:.1f}" text-anchor="end">{tick:.{digits}f}</text>'
            for tick in ticks
        )
        middle = (self.top + self.bottom) / 2
        return f'{lines}<text class="name" transform="translate(11 {middle:.0f}) rotate(-90)">{escape(label)}</text>'

    def line(self, points: Sequence[tuple[float, float]], kind: str) -> str:
        path = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        return f'<polyline class="{kind}" points="{path}"/>'

    def dot(self, x: float, y: float, kind: str, radius: float) -> str:
        return f'<circle class="{kind}" cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="{radius}"/>'


def _x_axis(frame: _Frame, y: float, label: str) -> str:
    ticks = "".join(
        f'<text x="{frame.x(tick):.1f}" y="{y + 16:.1f}" text-anchor="middle">{tick:.2f}</text>' for tick in _TICKS
    )
    return f'{ticks}<text class="name" x="{frame.x(0.5):.1f}" y="{y + 34:.1f}">{escape(label)}</text>'


def _box(left: float, top: float, right: float, bottom: float, kind: str) -> str:
    width, height = max(right - left, 1), max(bottom - top, 0)
    return f'<rect class="{kind}" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}"/>'


def _svg(title: str, words: str, parts: Sequence[str]) -> str:
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>{escape(title)}</title>'
        f"<desc>{escape(words)}</desc>{''.join(parts)}</svg>"
    )
