"""The page: complete, self-contained, safe with hostile texts, and alive in a real browser where there is one."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from vlm_crash.evaluation.confusion import MAX_TERMS, NO_ANSWER, RARER, field_matrices
from vlm_crash.evaluation.evaluate import evaluate
from vlm_crash.evaluation.report import report
from vlm_crash.evaluation.settings import EvaluationSettings
from vlm_crash.schema.fields import Schema
from vlm_crash.video.frame_sampling import FrameSampling
from vlm_crash.video.reader import read_frames

HOSTILE = "</script><script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\"> & \u2028 'q'"
WET = {"Weather": "Rainy", "Lanes": "2", "Crash_reason": HOSTILE}
DRY = {"Weather": "Clear", "Lanes": "3"}


class _Page(HTMLParser):
    """Elements, attributes, and the JSON of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.json: dict[str, object] = {}
        self._inside: str | None = None
        self._json_id: str | None = None
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        self._json_id = dict(attrs).get("id") if dict(attrs).get("type") == "application/json" else None

    def handle_endtag(self, tag):
        self._inside = self._json_id = None

    def handle_data(self, data):
        if self._json_id:
            self.json[self._json_id] = json.loads(data)
        elif self._inside not in ("script", "style"):
            self.text.append(data)


@pytest.fixture
def page(tmp_path: Path, schema: Schema, say, write_csv, write_lines, make_clip) -> Path:
    """Right; wrong event; wrong field; failed; absent. One name is hostile."""
    bad_name = "<b onclick=x>&'.mp4"
    truth = [
        write_csv("crash", {"1.mp4": WET, "2.mp4": WET, bad_name: WET}),
        write_csv("nearmiss", {"1.mp4": DRY, "2.mp4": DRY, "3.mp4": DRY}),
    ]
    clip = str(make_clip("clips/crash/1.mp4"))
    failed = say("2.mp4", "nearmiss", {}, "nearmiss", status="failed", error="no <video> stream")
    predictions = [
        say("1.mp4", "crash", WET, "crash", path=clip, event_probability=0.9),
        say("2.mp4", "nearmiss", {"Weather": "Rainy"}, "crash", path=clip, event_probability=0.2),
        say(bad_name, "crash", {**WET, "Weather": "Foggy"}, "crash", path="gone.mp4", event_probability=0.8),
        say("1.mp4", "nearmiss", DRY, "nearmiss", event_probability=0.1),
        replace(failed, event=None, response=""),
    ]
    evaluate([write_lines(predictions)], truth, tmp_path / "out", schema, EvaluationSettings(None))
    return report(tmp_path / "out")


def test_the_page_holds_every_section_and_every_clip(page: Path):
    found = _Page(page.read_text(encoding="utf-8"))
    ids = {attrs.get("id") for _, attrs in found.elements}
    assert {"fields", "confusion", "clips", "reading"} <= ids
    clips = found.json["data"]
    assert [clip["key"] for clip in clips] == [
        "crash/1.mp4", "crash/2.mp4", "crash/<b onclick=x>&'.mp4", "nearmiss/1.mp4", "nearmiss/2.mp4", "nearmiss/3.mp4"
    ]  # fmt: skip
    assert sum(tag == "li" and "data-clip" in attrs for tag, attrs in found.elements) == 6
    assert [clip["failed"] for clip in clips] == [False, False, False, False, True, True]
    assert "no <video> stream" in clips[4]["problem"]
    assert "no prediction" in clips[5]["problem"]
    marks = {one["name"]: one["mark"] for one in clips[2]["fields"]}
    assert (marks["Weather"], marks["Lanes"], marks["Crash_reason"], marks["Road_type"]) == (
        "wrong",
        "right",
        "text",
        "out",
    )
    text = " ".join(found.text)
    assert "0.333" in text  # crash weather: right, wrong event, wrong
    assert "text scores are turned off" in text


def test_frames_are_inside_as_small_jpegs(page: Path):
    found = _Page(page.read_text(encoding="utf-8"))
    frames = [found.json[f"frames-{n}"] for n in range(6)]
    assert [len(one["images"]) for one in frames] == [8, 8, 0, 0, 0, 0]
    assert all(image.startswith("data:image/jpeg;base64,/9j/") for image in frames[0]["images"])
    assert max(len(image) for image in frames[0]["images"]) < 12_000
    assert frames[0]["times"] == sorted(frames[0]["times"])
    assert "gone.mp4" in frames[2]["reason"]


def test_moved_clips_are_found(page: Path, make_clip):
    moved = make_clip("elsewhere/nearmiss/1.mp4").parents[1]
    again = report(page.parent, page.parent / "again" / "page.html", clips=moved)
    assert len(_Page(again.read_text(encoding="utf-8")).json["frames-3"]["images"]) == 8


def test_the_page_asks_for_nothing_outside(page: Path):
    text = page.read_text(encoding="utf-8")
    found = _Page(text)
    for tag, attrs in found.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "img"), tag
        assert "src" not in attrs and "srcset" not in attrs, (tag, attrs)
        assert (attrs.get("href") or "#").startswith("#")
    outside = re.sub(r"<script type=\"application/json\".*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"https?://|@import|url\(|fetch\(|XMLHttpRequest|sourceMappingURL", outside)
    assert "default-src 'none'" in text


def test_texts_of_others_stay_texts(page: Path):
    text = page.read_text(encoding="utf-8")
    assert "<script>document.title" not in text
    assert "<img" not in text
    assert "<b onclick" not in text
    found = _Page(text)
    assert any("</script><script>document.title='pwned'" in one["truth"] for one in found.json["data"][0]["fields"])
    assert not any(name.startswith("on") and tag != "form" for tag, attrs in found.elements for name in attrs)


def test_light_and_dark(page: Path):
    assert "prefers-color-scheme: dark" in page.read_text(encoding="utf-8")


def test_a_folder_without_evaluation_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"metrics\.json is missing; give the folder that"):
        report(tmp_path)
    for name in ("metrics.json", "records.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match="run `evaluate` again"):
        report(tmp_path)
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        report(tmp_path)


def test_a_folder_of_clips_that_is_not_there(tmp_path: Path):
    with pytest.raises(ValueError, match=r"clips='.*nope' is no folder; set --clips"):
        report(tmp_path, clips=tmp_path / "nope")


def test_rare_terms_of_a_matrix_are_gathered_and_none_is_lost(schema: Schema):
    event = schema.event("crash")

    def record(truth: str, answer: str | None) -> dict[str, object]:
        verdict = "missing" if answer is None else "right" if answer == truth else "wrong"
        blank = {"truth": "Unknown", "answer": None, "verdict_given_event": "out"}
        fields = dict.fromkeys(event.field_names, blank)
        fields["Crash_with"] = {"truth": truth, "answer": answer, "verdict_given_event": verdict}
        return {"event": "crash", "fields": fields}

    records = [record(f"Kind_{n:02}", f"Kind_{n:02}") for n in range(20) for _ in range(30 - n)]
    records += [record("Kind_00", None), record("Kind_00", "Kind_19")]
    (matrix,) = field_matrices(event, records)
    assert len(matrix["columns"]) == MAX_TERMS + 2
    assert matrix["columns"][-2:] == [RARER, NO_ANSWER]
    assert matrix["n"] == sum(cell["n"] for row in matrix["rows"] for cell in row["cells"]) == len(records)
    assert [cell["n"] for cell in matrix["rows"][0]["cells"]][-2:] == [1, 1]
    assert not any(cell["right"] for cell in matrix["rows"][-1]["cells"])  # rarer terms: not known to be right


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        ("", [0, 1, 2, 3, 4, 5]),
        ("#show=wrong", [1, 2, 4, 5]),
        ("#show=right", [0, 3]),
        ("#show=failed", [4, 5]),
        ("#show=wrong&event=crash", [1, 2]),
        ("#by=event&show=wrong", [1, 4, 5]),
        ("#by=Weather&show=right", [0, 1, 3]),
        ("#name=onclick", [2]),
        ("#name=nothing-has-this", []),
    ],
)
def test_filters_in_a_browser(page: Path, browse, visible, state: str, shown: list[int]):
    dom = browse(page, state)
    assert visible(dom) == shown
    assert f"{len(shown)} of 6" in dom
    assert "pwned" not in re.search(r"<title>(.*?)</title>", dom).group(1)


def test_clicks_and_keys_in_a_browser(page: Path, browse):
    """A copy of the page with a user at its end."""
    user = """<script>
      const tell = (text) => {
        const p = document.createElement("p");
        p.className = "told"; p.textContent = text; document.body.append(p);
      };
      const title = () => document.querySelector("#detail h3").textContent;
      tell(title() + " / " + document.querySelectorAll("#detail img").length + " frames");
      document.querySelector('[data-clip="3"] button').click(); tell(title());
      const key = new KeyboardEvent("keydown", {key: "ArrowDown", bubbles: true});
      document.getElementById("list").dispatchEvent(key); tell(title());
      const wrong = document.querySelector("input[value=wrong]");
      wrong.checked = true; wrong.dispatchEvent(new Event("input", {bubbles: true}));
      tell(document.getElementById("shown").value + " / " + location.hash);
    </script>"""
    copy = page.with_name("copy.html")
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", user + "</body>"), encoding="utf-8")
    told = re.findall(r'<p class="told">(.*?)</p>', browse(copy))
    assert told == [
        "Crash · 1.mp4 / 8 frames", "Near miss · 1.mp4", "Near miss · 2.mp4",
        "4 of 6 / #show=wrong&amp;clip=nearmiss%2F2.mp4",
    ]  # fmt: skip


def test_the_control_of_this_test_notices_an_error(page: Path, browse):
    broken = page.with_name("broken.html")
    broken.write_text(
        page.read_text(encoding="utf-8").replace('"use strict";', '"use strict"; nothing();'), encoding="utf-8"
    )
    with pytest.raises(AssertionError, match="nothing is not defined"):
        browse(broken)


def test_the_page_shows_what_the_reader_reads(page: Path, tmp_path: Path):
    times = _Page(page.read_text(encoding="utf-8")).json["frames-0"]["times"]
    assert times == [round(time, 2) for time in read_frames(tmp_path / "clips/crash/1.mp4", FrameSampling(8)).times_s]
