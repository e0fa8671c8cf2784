"""Plots as SVG: the numbers stand where they should, and texts stay texts."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from tests.evaluation.additions import calibration
from vlm_crash.evaluation.plots import HEIGHT, WIDTH, reliability, risk_coverage

#: Confidences of five answers, and which are right: two bins, of 2 and of 3.
FOUND = calibration(np.array([0.65, 0.65, 0.95, 0.95, 0.95]), np.array([True, False, True, True, True]))


def test_a_reliability_diagram_has_a_bar_a_bin():
    root = ElementTree.fromstring(reliability("A <b> & c", FOUND))
    assert root.find("title").text == "Reliability of A <b> & c"
    bars = {
        kind: [tuple(float(bar.get(key)) for key in ("x", "y", "width", "height")) for bar in root.iter("rect")
               if bar.get("class") == kind]
        for kind in ("bar", "count")
    }  # fmt: skip
    (half, full), (two, three) = bars["bar"], bars["count"]
    assert half[3] * 2 == pytest.approx(full[3], abs=0.2)  # accuracy 0.5 and 1
    assert two[3] / three[3] == pytest.approx(2 / 3, abs=0.01)  # answers
    assert half[0] < full[0] and half[2] == full[2]
    assert all(bar[0] >= 0 and bar[0] + bar[2] <= WIDTH and bar[1] + bar[3] <= HEIGHT for bar in (*bars["bar"], two))
    ideal = next(line for line in root.iter("polyline") if line.get("class") == "ideal").get("points")
    assert len(ideal.split()) == 2


def test_accuracy_by_coverage_has_the_operating_point_on_its_curve():
    root = ElementTree.fromstring(risk_coverage("Weather", FOUND))
    lines = {line.get("class"): line.get("points").split() for line in root.iter("polyline")}
    assert len(lines["curve"]) == 5
    (dot,) = (one for one in root.iter("circle") if one.get("class") == "chosen")
    assert f"{dot.get('cx')},{dot.get('cy')}" in lines["curve"]
    point = FOUND["operating_point"]
    assert f"{100 * point['coverage']:.0f} % accepted" in root.find("desc").text
    alone = {**FOUND, "operating_point": {"wanted": 0.9, "threshold": None, "coverage": 0.0, "accuracy": None}}
    assert "chosen" not in risk_coverage("Weather", alone)  # no point is invented
