"""The words around a clip."""

import json
from pathlib import Path

import pytest

from vlm_crash.data.conversation import ChatTemplate, frame_lines, question, read_question, told_sampling, user_turn
from vlm_crash.schema.fields import load_schema

SCHEMA = load_schema()
TEMPLATES = json.loads((Path(__file__).parents[1] / "parity/prompts.json").read_text(encoding="utf-8"))["templates"]


def test_frame_lines_without_duration() -> None:
    assert frame_lines(2, None) == "Frame1: <image>\nFrame2: <image>"


def test_full_question_asks_for_every_field_and_term() -> None:
    text = question(SCHEMA, "full")
    for event in SCHEMA.events:
        assert event.opening in text
        for field in event.fields:
            assert f"- {field.label}: " in text
            assert all(term in text for term in field.vocabulary)


def test_the_event_is_not_in_the_question_unless_told() -> None:
    assert question(SCHEMA, "short") == "Describe the traffic event."
    told = question(SCHEMA, "full", told_event="nearmiss")
    assert "near miss" in told and SCHEMA.event("crash").opening not in told


def test_unknown_prompt() -> None:
    with pytest.raises(ValueError, match="'long' is not one of"):
        question(SCHEMA, "long")


def test_empty_system_message_leaves_no_system_turn() -> None:
    assert (
        ChatTemplate("").system + ChatTemplate("").question("Q")
        == "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"
    )
    assert ChatTemplate("S").system == "<|im_start|>system\nS<|im_end|>\n"


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_are_upstreams(name):
    template = ChatTemplate(name=name.rsplit(": ", 1)[1])
    chat = template.system + template.question("Q1") + f"A1{template.end_of_answer}" + template.question("Q2")
    assert chat == TEMPLATES[name]["rendered_2turn_inference"]


def test_unknown_template():
    with pytest.raises(ValueError, match=r"template='phi3-chat' is not one of .*internvl2_5.*set --data\.template"):
        ChatTemplate(name="phi3-chat")


def test_the_frames_of_event_are_not_called_uniform():
    plain = frame_lines(1, 2.0)
    assert plain == "The video lasts for 2.00 seconds, and 1 frames are uniformly sampled from it.\nFrame1: <image>"
    told = frame_lines(1, 2.0, sampled="event")
    assert "uniformly" not in told and "1 frames are sampled from it, more densely around its largest change" in told
    assert told.partition("\n")[2] == plain.partition("\n")[2]
    assert frame_lines(1, 2.0, "card", "event") == frame_lines(1, 2.0, "card")  # it tells nothing of it
    for rule in ("middle", "card", "fps", "duration"):
        assert told_sampling(rule, None, None) == told_sampling(rule, "event", "event") == "uniform"


def test_presets_place_the_frames():
    assert frame_lines(1, 2.0, "card") == "Frame1: <image>\n"
    assert frame_lines(1, 2.0, "demo") == frame_lines(1, 2.0, "training") + "\n"
    assert user_turn("Q", 1, 2.0, "card") == user_turn("<image>\nQ", 1, 2.0, "card") == "Frame1: <image>\nQ"
    assert user_turn("Look: <video>\nQ", 1, None) == "Look: Frame1: <image>Q"
    with pytest.raises(ValueError, match="has 2 places for the clip"):
        user_turn("<image> <video>", 1, None)


def test_a_labs_own_wording(tmp_path):
    file = tmp_path / "question.txt"
    file.write_bytes("\ufeffWas ist passiert?\r\nBitte kurz.\n".encode())
    assert read_question(file) == "Was ist passiert?\nBitte kurz."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"cannot be read \(No such file"),
        (b" \n", "is empty"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"<image>\nWhat?", "has a place for the clip in it"),
    ],
)
def test_a_prompt_file_that_cannot_be_used(content, message, tmp_path):
    file = tmp_path / "question.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"question\.txt' {message}"):
        read_question(file)
