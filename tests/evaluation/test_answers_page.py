"""The page of predictions without a truth: every clip is there, nothing on it looks like a score."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.evaluation.browser import Opened, chromium
from vlm_crash.evaluation.answers_page import answer_data, answers_context
from vlm_crash.evaluation.report import report


@pytest.fixture
def predictions(say, make_clip):
    """Two answered, one of them hostile; one of no event; one failed."""
    clip = str(make_clip("clips/1.mp4"))
    failed = say("3.mp4", "crash", {}, status="failed", error="there is no video stream in it")
    return [
        say("1.mp4", "crash", {"Weather": "Rainy", "Note": "</script><b>x"}, path=clip, event_probability=0.9),
        say("<i>.mp4", "nearmiss", {"Lanes": "2"}, "nearmiss", path="gone.mp4", event_probability=0.25),
        replace(say("2.mp4", "crash", {}, path=clip), event=None, response="A road."),
        replace(failed, event=None, response=""),
    ]


def _json(page: Path, name: str):
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', text).group(1))


def test_every_clip_is_on_the_page_with_frames_or_a_reason(predictions, write_lines):
    page = report(write_lines(predictions, "run/predictions.jsonl").parent)
    assert page.name == "report.html"
    clips = _json(page, "data")["clips"]
    assert [clip["video"] for clip in clips] == ["1.mp4", "<i>.mp4", "2.mp4", "3.mp4"]
    events, fields = [clip["rows"][0] for clip in clips], clips[0]["rows"][1:]
    assert [row["answer"] for row in events] == ["crash", "near miss", "no event", "no answer"]
    assert [row["note"] for row in events] == ["P(crash) = 0.90", "P(crash) = 0.25", "", ""]
    assert [row.get("p") for row in events] == [0.9, 0.75, None, None]  # of the event that was answered
    assert {one["label"]: one["answer"] for one in fields} == {"Weather": "Rainy", "Note": "</script><b>x"}
    frames = [_json(page, f"clip-{n}") for n in range(4)]
    assert frames[3]["problem"] == "No answer: there is no video stream in it"
    assert [len(one["images"]) for one in frames] == [8, 0, 8, 0]
    assert frames[1]["no_frames"] == "gone.mp4 is not there; give the folder of the clips by --clips"
    text = page.read_text(encoding="utf-8")
    assert "<h1>Answers to 4 clips</h1>" in text
    assert "1 crash, 1 near miss, 1 of no event." in text
    assert "<b>1</b> could not be answered" in text
    assert "<b>x" not in text and "<i>.mp4" not in text
    said = re.sub(r"<(style|script).*?</\1>", "", text, flags=re.DOTALL)
    assert not re.search(r"https?://|exact match|baseline", said)


def test_answers_alone_are_compared_with_nothing(predictions, write_lines):
    folder = write_lines(predictions, "run/predictions.jsonl").parent
    with pytest.raises(ValueError, match="holds answers without scores; --compare takes two folders of `evaluate`"):
        report(folder, other=folder)


def test_an_evaluation_beside_the_lines_comes_first(predictions, write_lines):
    folder = write_lines(predictions, "run/predictions.jsonl").parent
    (folder / "metrics.json").write_text("{")
    with pytest.raises(ValueError, match=r"metrics\.json is not JSON"):
        report(folder)


@pytest.mark.parametrize(("text", "message"), [("", "has no predictions"), ("{broken\n[1]\n", "line 1: not JSON")])
def test_lines_that_are_none_are_said(tmp_path: Path, text: str, message: str):
    (tmp_path / "predictions.jsonl").write_text(text)
    with pytest.raises(ValueError, match=message):
        report(tmp_path)


def test_events_and_fields_of_another_lab_are_shown_as_they_are(say):
    one = replace(say("1.mp4", "crash", {}, event_probability=0.5), event="rock_fall", fields={"Rock_size": "Big"})
    assert answers_context([one])["counts"] == [{"event": "rock_fall", "title": "rock fall", "n": 1}]
    event, *fields = answer_data(one)["rows"]
    assert (event["answer"], event["note"]) == ("rock fall", "") and "p" not in event  # whose it is, is not known
    assert [(field["label"], field["answer"]) for field in fields] == [("Rock size", "Big")]


def test_in_a_browser(predictions, write_lines):
    page = report(write_lines(predictions, "run/predictions.jsonl").parent)
    with chromium() as browser:
        opened = Opened(browser, page)
        assert opened.listed() == [0, 1, 2, 3]
        assert opened.text("#detail h3") == "1.mp4"
        assert opened.page.locator("#detail img").count() == 8
        assert opened.texts(".answers thead th") == ["Field", "Answer"]  # nothing to compare with, nothing to mark
        assert opened.page.locator("#marks, .marker").count() == 0
        opened.press("j")
        assert opened.text("#detail h3") == "<i>.mp4"
        for state, shown in {"#status=failed": [3], "#event=nearmiss": [1], "#text=rainy": [0]}.items():
            opened.turn(state)
            assert opened.listed() == shown
        assert opened.troubles == []
