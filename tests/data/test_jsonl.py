import json

import pytest

from vlm_crash.data.annotations import read_annotations
from vlm_crash.data.jsonl import read_jsonl, to_line
from vlm_crash.data.problems import InputProblems
from vlm_crash.schema import UNKNOWN, render

OLD_ANSWER = """This video shows a near-miss scenario.

**Environment:**
- Light condition: Daylight
- Weather: rainy
- Surface_state: Wet
- Number of lanes: 3
- Guilty party (if applicable): No
- Reason for avoidance maneuver: Pedestrian stepped out
"""


def old_line(**changes) -> str:
    turns = [{"from": "human", "value": "<image>\nWhat happens?"}, {"from": "gpt", "value": OLD_ANSWER}]
    line = {"id": "nearmiss_1", "video": "1.mp4", "duration": 8.0, "conversations": turns} | changes
    return json.dumps({key: value for key, value in line.items() if value is not ...})


def test_written_lines_come_back(write_csv, nearmiss_row, schema, tmp_path):
    rows = [{**nearmiss_row, "Weather": "", "Avoid_reason": 'he said "stop"', "duration": "2.5"}]
    (sample,), _ = read_annotations(write_csv("n.csv", rows), "nearmiss", schema, None)
    path = tmp_path / "n.jsonl"
    path.write_text(to_line(sample, schema, "What\u2028now?") + "\n", encoding="utf-8")
    (back,) = read_jsonl(path, tmp_path / "clips", schema)
    assert back.annotation == sample.annotation
    assert (back.id, back.event, back.duration_s) == (sample.id, "nearmiss", 2.5)
    assert back.path == tmp_path / "clips" / "1.mp4"
    assert back.question == "<image>\nWhat\u2028now?"
    assert back.answer == render(schema, sample.annotation)


@pytest.mark.parametrize("event", ["nearmiss", None])
def test_old_lines_are_parsed(tmp_path, schema, event):
    path = tmp_path / "nearmiss_ft.jsonl"
    path.write_text(old_line() + "\n\n" + old_line(id="nearmiss_2", video="2.mp4", duration=None), encoding="utf-8")
    first, second = read_jsonl(path, tmp_path, schema, event)
    assert first.event == "nearmiss"
    values = first.annotation.values
    assert (values["Weather"], values["Road_surface_condition"], values["Lanes"]) == ("Rainy", "Wet", "3")
    assert (values["Guilty"], values["Avoid_reason"]) == ("No", "Pedestrian stepped out")
    assert values["Road_flat"] == UNKNOWN
    assert first.answer == OLD_ANSWER  # learnt as it stands
    assert (second.video, second.duration_s) == ("2.mp4", None)


def test_words_that_are_not_understood_are_counted_once_for_the_file(tmp_path, schema, caplog):
    path = tmp_path / "nearmiss_ft.jsonl"
    turns = [{"from": "gpt", "value": OLD_ANSWER.replace("rainy", "purple")}]
    path.write_text("\n".join(old_line(id=f"n{i}", conversations=turns) for i in range(3)))
    assert [s.annotation.values["Weather"] for s in read_jsonl(path, tmp_path, schema, "nearmiss")] == [UNKNOWN] * 3
    assert "3 values were not understood" in caplog.text
    assert len(caplog.records) == 1


def test_all_bad_lines_are_reported_at_once(tmp_path, schema):
    path = tmp_path / "nearmiss_ft.jsonl"
    lines = [
        old_line(),
        "{not json",
        "[1]",
        old_line(video=...),
        old_line(id="x", conversations=[]),
        old_line(id="y", fields={"Weather": "purple"}),
        old_line(id="z", fields={"Wether": "Clear"}),
        old_line(id="t", conversations=[{"from": "human", "value": "And?"}, *json.loads(old_line())["conversations"]]),
        old_line(),
    ]
    path.write_text("\n".join(lines))
    with pytest.raises(InputProblems) as caught:
        read_jsonl(path, tmp_path, schema, "nearmiss")
    assert [p.row for p in caught.value.problems] == [2, 3, 4, 5, 6, 7, 8, 9]
    assert "'nearmiss_1' is there twice" in caught.value.problems[-1].problem
    for word in ("list", "'video'", "neither fields nor a gpt turn", "purple", "Wether", "3 turns"):
        assert word in str(caught.value)


def test_an_answer_that_names_no_event(tmp_path, schema):
    path = tmp_path / "a.jsonl"
    path.write_text(old_line(conversations=[{"from": "gpt", "value": "- Weather: Clear"}]))
    with pytest.raises(ValueError, match="which event"):
        read_jsonl(path, tmp_path, schema)


def test_absent_file(tmp_path, schema):
    with pytest.raises(FileNotFoundError, match=r"a\.jsonl: no such conversation file"):
        read_jsonl(tmp_path / "a.jsonl", tmp_path, schema)
