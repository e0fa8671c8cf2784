import pytest

from vlm_crash.metrics.functional import Verdict, clip_verdicts, comparable, field_verdict, majority, share
from vlm_crash.schema.fields import UNKNOWN, Field, Schema
from vlm_crash.schema.records import Annotation, Answer, ParsedResponse


@pytest.mark.parametrize(
    ("truth", "answer", "verdict"),
    [
        ("Rainy", Answer("value", "Rainy"), Verdict.RIGHT),
        ("Rainy", Answer("value", "Clear"), Verdict.WRONG),
        ("Rainy", Answer("value", UNKNOWN), Verdict.UNKNOWN),
        ("Rainy", Answer("missing"), Verdict.MISSING),
        ("Rainy", None, Verdict.MISSING),
        ("Rainy", Answer("not_understood", None, "damp"), Verdict.NOT_UNDERSTOOD),
        (UNKNOWN, Answer("value", "Rainy"), Verdict.OUT),
        (UNKNOWN, Answer("value", UNKNOWN), Verdict.OUT),
        (UNKNOWN, None, Verdict.OUT),
    ],
)
def test_verdict_of_one_answer(schema: Schema, truth: str, answer: Answer | None, verdict: Verdict):
    assert field_verdict(schema.field("Weather"), truth, answer) is verdict


def test_only_an_unknown_truth_leaves_the_count():
    assert [verdict for verdict in Verdict if not verdict.counted] == [Verdict.OUT]


def test_spelling_of_an_open_term_does_not_decide():
    with_whom = Field("Crash_with", ("Crash_with",), "Crash with", (), "Parties", "categorical")
    assert comparable(with_whom, "Passenger_vehicle") == comparable(with_whom, "passenger  vehicle")
    assert comparable(with_whom, "Passenger_vehicle") != comparable(with_whom, "Passenger_bus")


def test_counts_compare_as_numbers(schema: Schema):
    assert field_verdict(schema.field("Lanes"), "2.0", Answer("value", "2")) is Verdict.RIGHT
    assert field_verdict(schema.field("Lanes"), "12", Answer("value", "2")) is Verdict.WRONG


def test_wrong_event_makes_known_fields_wrong_and_unknown_ones_stay_out(schema: Schema):
    truth = Annotation("nearmiss", {"Weather": "Clear", "Reason": UNKNOWN})
    said = ParsedResponse("crash", {"Weather": Answer("value", "Clear"), "Reason": Answer("value", "Ice")})
    event = schema.event("nearmiss")
    assert clip_verdicts(event, truth, said) == {"Weather": Verdict.WRONG_EVENT, "Reason": Verdict.OUT}
    given = clip_verdicts(event, truth, said, given_event=True)
    assert given == {"Weather": Verdict.RIGHT, "Reason": Verdict.OUT}


def test_an_answer_without_event_is_of_the_wrong_event_and_no_answer_is_missing(schema: Schema):
    truth = Annotation("nearmiss", {"Weather": "Clear", "Reason": "Ice"})
    event = schema.event("nearmiss")
    said = ParsedResponse(None, {"Weather": Answer("value", "Clear")})
    assert set(clip_verdicts(event, truth, said).values()) == {Verdict.WRONG_EVENT}
    assert set(clip_verdicts(event, truth, None).values()) == {Verdict.MISSING}


def test_a_truth_of_another_event_is_refused(schema: Schema):
    truth = Annotation("nearmiss", {"Weather": "Clear", "Reason": "Ice"})
    with pytest.raises(ValueError, match=r"'nearmiss'.*'crash'"):
        clip_verdicts(schema.event("crash"), truth, None)


def test_nothing_has_no_share_and_no_majority():
    assert share(0, 0) is None
    assert share(0, 2) == 0
    assert majority([]) is None
    assert majority(["b", "a"]) == ("a", 1)
