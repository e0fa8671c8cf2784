import pytest

from vlm_crash.schema.consistency import Condition
from vlm_crash.schema.fields import Schema, SchemaError, load_schema

SCHEMA = load_schema()
RULES = {rule.name: rule for rule in SCHEMA.rules}


@pytest.mark.parametrize(
    ("condition", "holding", "sparing"),
    [
        (Condition("Weather", ("Snowy", "Head_on")), ["Snowy", "head-on"], ["Clear", "Snow", None]),
        (Condition("Lanes", below=2), ["0", "1"], ["2", "10", "", "one", "-1", None]),
        (Condition("Lanes", above=2), ["3", "10"], ["2", "many", None]),
        (Condition("Note"), ["anything", ""], [None]),
    ],
)
def test_what_a_condition_holds_for(condition, holding, sparing):
    assert [value for value in [*holding, *sparing] if condition.holds(value)] == holding


def test_a_rule_is_broken_by_all_its_conditions_and_by_nothing_unsaid():
    rule = RULES["snow_on_dry_road"]
    assert rule.is_broken({"Weather": "Snowy", "Road_surface_condition": "Dry", "Lanes": "1"})
    assert not rule.is_broken({"Weather": "Snowy", "Road_surface_condition": "Icy"})
    assert not rule.is_broken({"Weather": "Snowy"}) and not rule.is_checked({"Weather": "Snowy"})
    assert [event.name for event in SCHEMA.events if rule.concerns(event.name, event.field_names)] == [
        "crash", "nearmiss",
    ]  # fmt: skip
    severity = RULES["near_miss_with_a_severity"]
    assert severity.is_checked({}) and not severity.is_broken({}) and severity.is_broken({"Crash_severity": "Injury"})
    assert not severity.concerns("crash", SCHEMA.event("crash").field_names)


def test_a_labs_rules_come_with_its_schema_and_go_back_into_the_yaml():
    own = SCHEMA.to_dict()
    own["consistency"] = {
        "wide_lot": {"sentence": "A lot.", "when": {"Road_type": ["Parking_lot"], "Lanes": "above 6"}}
    }
    schema = Schema.from_dict(own)
    assert [rule.name for rule in schema.rules] == ["wide_lot"]
    assert schema.to_dict() == own and schema.fingerprint == SCHEMA.fingerprint
    del own["consistency"]
    assert Schema.from_dict(own).rules == ()
    assert load_schema("scan.yaml").rules == SCHEMA.rules


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ({"sentence": "s", "when": {"Wether": ["Rainy"]}}, "'Wether' is not in `fields`; nearest: 'Weather'"),
        ({"sentence": "s", "when": {"Weather": ["Rain"]}}, "Weather: 'Rain' is not in the vocabulary"),
        ({"sentence": "s", "when": {"Weather": "Rainy"}}, "'Rainy' is none of"),
        ({"sentence": "s", "when": {"Lanes": ["2"]}}, "a count field has no terms"),
        ({"sentence": "s", "when": {"Weather": "below 2"}}, "is for counts"),
        ({"sentence": "s", "event": "flood", "when": {"Weather": "said"}}, "'flood' is not in `events`"),
        ({"sentence": "s", "when": {"Note": "said", "Avoid_reason": "said"}}, "no event has all of Note, Avoid_reason"),
        ({"when": {"Note": "said"}}, "sentence: missing"),
        ({"sentence": "s", "when": {"Note": "said"}, "evnt": "crash"}, "evnt: unknown key; nearest: 'event'"),
        ({"sentence": "s"}, "must hold `sentence` and `when`"),
        ("Weather", "must hold `sentence` and `when`"),
    ],
)
def test_a_rule_that_names_what_is_not_there_is_refused(rule, problem):
    with pytest.raises(SchemaError) as caught:
        Schema.from_dict({**SCHEMA.to_dict(), "consistency": {"mine": rule}})
    assert "consistency.mine" in str(caught.value) and problem in str(caught.value)
