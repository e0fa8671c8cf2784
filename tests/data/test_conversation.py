"""The words around a clip."""

import pytest

from vlm_crash.data.conversation import ChatTemplate, frame_lines, question
from vlm_crash.schema.fields import load_schema

SCHEMA = load_schema()


def test_frame_lines_without_duration() -> None:
    assert frame_lines(2, None) == "Frame1: <image>\nFrame2: <image>\n"


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
    assert ChatTemplate("").prompt("Q") == "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"
    assert ChatTemplate("S").prompt("Q").startswith("<|im_start|>system\nS<|im_end|>\n")
