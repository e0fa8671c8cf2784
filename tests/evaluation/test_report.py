"""The page as a text: complete, self-contained, safe with hostile texts. test_report_browser.py opens it."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.evaluation.pages import evaluation, full_page
from vlm_crash.evaluation.confusion import MAX_TERMS, NO_ANSWER, RARER, field_matrices
from vlm_crash.evaluation.report import report
from vlm_crash.evaluation.report_sections import differences_section
from vlm_crash.schema.fields import Schema, load_schema
from vlm_crash.video.frame_sampling import FrameSampling
from vlm_crash.video.reader import read_frames


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


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report(evaluation(tmp_path_factory.mktemp("page")))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return full_page(tmp_path_factory.mktemp("full"))


def test_the_page_holds_every_section_and_every_clip(page: Path):
    found = _Page(page.read_text(encoding="utf-8"))
    ids = {attrs.get("id") for _, attrs in found.elements}
    assert {"fields", "confusion", "clips", "reading"} <= ids
    clips = found.json["data"]["clips"]
    assert [clip["key"] for clip in clips] == [
        "crash/1.mp4", "crash/2.mp4", "crash/<b onclick=x>&'.mp4", "nearmiss/1.mp4", "nearmiss/2.mp4", "nearmiss/3.mp4"
    ]  # fmt: skip
    assert [clip["status"] for clip in clips] == ["ok", "ok", "ok", "ok", "failed", "absent"]
    assert "no <video> stream" in found.json["clip-4"]["problem"]
    assert "no prediction" in found.json["clip-5"]["problem"]
    marks = {one["name"]: one["mark"] for one in clips[2]["rows"]}
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
    frames = [found.json[f"clip-{n}"] for n in range(6)]
    assert [len(one["images"]) for one in frames] == [8, 8, 0, 0, 0, 0]
    assert all(image.startswith("/9j/") for image in frames[0]["images"])
    assert max(len(image) for image in frames[0]["images"]) < 12_000
    assert frames[0]["link"] == "./../clips/crash/1.mp4"
    assert frames[0]["times"] == sorted(frames[0]["times"])
    assert "gone.mp4" in frames[2]["no_frames"]


def test_moved_clips_are_found(page: Path, make_clip, tmp_path: Path):
    moved = make_clip("elsewhere/nearmiss/1.mp4").parents[1]
    again = report(page.parent, tmp_path / "again" / "page.html", clips=moved)
    clip = _Page(again.read_text(encoding="utf-8")).json["clip-3"]
    assert len(clip["images"]) == 8 and clip["link"] == "./../elsewhere/nearmiss/1.mp4"


def test_the_page_asks_for_nothing_outside(full: Path):
    text = full.read_text(encoding="utf-8")
    found = _Page(text)
    for tag, attrs in found.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "img"), tag
        assert "src" not in attrs and "srcset" not in attrs, (tag, attrs)
        assert (attrs.get("href") or "#").startswith("#")
    outside = re.sub(r"<script type=\"application/json\".*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"https?://|@import|url\(|fetch\(|XMLHttpRequest|sourceMappingURL", outside)
    assert "default-src 'none'" in text and re.search(r"script-src 'sha256-[^']+'; base-uri 'none'", text)


def test_texts_of_others_stay_texts(full: Path):
    text = full.read_text(encoding="utf-8")
    assert "<script>document.title" not in text
    assert "<img" not in text
    assert "<b onclick" not in text and "<b>Snowy" not in text and "<i>Other" not in text
    found = _Page(text)
    assert any(
        "</script><script>document.title='pwned'" in one["truth"] for one in found.json["data"]["clips"][0]["rows"]
    )
    assert not any(name.startswith("on") for tag, attrs in found.elements for name in attrs)


def test_parts_that_the_metrics_lack_are_left_out_and_those_they_have_are_drawn(page: Path, full: Path, tmp_path: Path):
    metrics = json.loads((page.parent / "metrics.json").read_text(encoding="utf-8"))
    for part in ("crash", "nearmiss", "event"):
        for entry in (metrics[part], *metrics[part].get("fields", {}).values()):
            entry.pop("calibration", None)
    metrics["consistency"] = None
    (tmp_path / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    shutil.copy(page.parent / "records.json", tmp_path)
    without, found = (_Page(path.read_text(encoding="utf-8")) for path in (report(tmp_path), full))
    for name in ("calibration", "consistency"):
        assert name not in {attrs.get("id") for _, attrs in without.elements}
        assert name in {attrs.get("id") for _, attrs in found.elements}
    columns = {attrs.get("class") for tag, attrs in found.elements if tag == "td"}
    assert {"score", "majority", "metadata", "kappa", "ece"} <= columns
    # No text was scored, no blind answers given: no field has a value.
    assert not {"roles", "blind", "blind_given"} & columns
    plots = [attrs["data-plot"] for _, attrs in found.elements if "data-plot" in attrs]
    assert plots[:3] == ["event", "crash/Weather", "crash/Lanes"]
    said = " ".join(found.text)
    assert "Snow & a dry road" in said and "Two readers" in said and "3 terms have fewer than 10 clips" in said
    assert not any("no value" in text for text in without.text)
    hrefs = [attrs["href"] for tag, attrs in found.elements if tag == "a" and "clip=" in (attrs.get("href") or "")]
    assert hrefs == ["#clip=crash/1.mp4", "#clip=crash/2.mp4"]  # of an answer, of a truth
    assert "1 truth that breaks a rule" in said and "n 30, 0.700\N{EN DASH}0.900" in said


def test_differences_to_a_second_evaluation(page: Path, tmp_path: Path):
    text = " ".join(_Page(report(page.parent, tmp_path / "two.html", other=page.parent).read_text()).text)
    assert "Against a second run" in text and "on the 6 clips of both" in text
    assert "0 rows of" in text and "A better" not in text  # with itself
    schema = load_schema()
    row = {"event": "crash", "field": "Type_of_impact", "metric": "exact_match", "n": 5, "a": 0.8, "b": 0.4}
    row |= {"difference": 0.4, "low": 0.1, "high": 0.6, "p": 0.01, "p_holm": 0.03, "verdict": "A better"}
    mean = row | {"event": "all", "field": "mean", "p_holm": None, "verdict": "cannot tell apart"}
    found = differences_section(schema, {"a": "one", "b": "two", "n": 5, "fields": [row], "means": [mean]})
    assert found["num_apart"] == 1
    shown = [(one["label"], one["event_title"], one["interval"], one["p"], one["is_alone"]) for one in found["rows"]]
    assert shown == [
        ("Type of impact", "Crash", "+0.100 \N{EN DASH} +0.600", 0.03, False),
        ("mean", "all", "+0.100 \N{EN DASH} +0.600", 0.01, True),
    ]


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


def test_the_page_shows_what_the_reader_reads(page: Path):
    times = _Page(page.read_text(encoding="utf-8")).json["clip-0"]["times"]
    assert times == [
        round(time, 2) for time in read_frames(page.parents[1] / "clips/crash/1.mp4", FrameSampling(8)).times_s
    ]
