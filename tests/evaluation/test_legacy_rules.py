"""Each quirk of the old rules by itself; the golden scores are in test_legacy_scores.py."""

import json
from importlib import resources
from pathlib import Path

import pytest

from vlm_crash.evaluation.legacy_rules import found_value, is_known, legacy_value, mapped

SHARED = Path(__file__).resolve().parents[3] / "shared" / "legacy" / "rules.json"


@pytest.mark.parametrize(
    ("field", "response", "found"),
    [
        ("Weather", "- weather:   Light   rain  \n- Lanes: 2", "Light rain"),
        ("Weather", "Weather: Fog\n- Weather: Snow", "Snow"),  # the search behind a dash goes first
        ("Weather", "- Weather:\n- Lanes: 2", "- Lanes: 2"),  # blanks after the colon reach over the line's end
        ("Weather", "- Weather: **\nWeather: Fog", ""),  # the next searches find the same place again
        ("Weather", "Weather: Fog\n- Weather: **", "Fog"),  # the search anywhere finds another place
        ("Weather", "**Weather**: Fog", ""),
        ("Weather", "**Weather:** Fog", " Fog"),  # bold goes after the blanks
        ("Road_type", "Road_type: Street\n- Road type: Highway", "Highway"),  # the first label wins, wherever it is
        ("Road_type", "- Road_type: Street", "Street"),
        ("Lanes", "- Planes: 7", "7"),  # inside another word
        ("Crash_reason", "Avoid reason: Ice", "Ice"),
        ("Note", "Additional Notes:\nCamera shook", "Camera shook"),
        ("Note", "**Additional Notes:**\nCamera shook", ""),  # the bold ends its line
        ("Note", "Footnote: a", "a"),
        ("Total_number_of_vehicles", "Vehicles involved: 3", "3"),
        ("Road_surface_condition", "- Road surface: Wet\n- Surface_state: Wet", ""),
        ("Crash_vehicle_type", "- Other vehicle type: Van", "Van"),  # "Vehicle type", inside the longer label
        ("Light_condition", "", ""),
    ],
)
def test_what_is_found(field, response, found):
    assert found_value(response, "crash", field) == found


@pytest.mark.parametrize(
    ("field", "value", "term"),
    [
        ("Road_type", "Highway/Freeway", "Highway/Freeway"),
        ("Road_type", "Unsignalized_intersection", "nonSignalized_intersection"),  # the whole key
        ("Road_type", "An unsignalized intersection", "Signalized_intersection"),  # the first key inside
        ("Road_type", "non-signalized intersection", "Signalized_intersection"),  # its own key has a hyphen
        ("Road_type", "way", "Highway/Freeway"),  # a key that contains the value
        ("Road_type", "Bridge", "Bridge"),
        ("Crash_type", "Rear-end", "Rear_end"),
        ("Crash_type", "T-bone", "T-bone"),
        ("Type_of_impact", "Sideswipe_same_direction", "Sideswipe_same_direction"),
        ("Type_of_impact", "Sideswipe, same direction", "Front_to_side"),  # "side" stands before "sideswipe"
        ("Crash_severity", "No injury, minor", "Property_damage_only"),
        ("Light_condition", " Dark_unlighted ", "Dark_unlighted"),
        ("Light_condition", "Dark, unlighted", "Dark_lighted"),
        ("Weather", "a", "Clear"),
        ("Lanes", "about 4 or 5", "4"),
        ("Lanes", "two", "two"),
        ("Traffic_condition", "Traffic was not heavy, few cars", "Light_traffic"),  # groups in order, not the text
        ("Traffic_condition", "Bumper to bumper", "Bumper to bumper"),
        ("Guilty", "Unknown", "Both"),  # of the table: "no" inside it is not the word
        ("Guilty", "No", "No"),
        ("Guilty", "No (both braked)", "Both"),
        ("Guilty", "Another car", "No"),  # "not" inside "another"
        ("Guilty", "The other one", "No"),
        ("Guilty", "Your own", "Yes"),  # "our"
        ("Guilty", "each other", "Both"),
        ("Guilty", "Pedestrian", "Pedestrian"),
        ("Crash_with", "car", "car"),
        ("Weather", "  ", "  "),
    ],
)
def test_what_it_becomes(field, value, term):
    assert mapped(value, "crash", field) == term


def test_only_a_crash_has_its_own_tables():
    assert legacy_value("Guilty party: The ego vehicle", "nearmiss", "Guilty") == "Yes"
    assert mapped("rear-end", "nearmiss", "Crash_type") == "rear-end"
    assert is_known("nearmiss", "Avoid_reason") and not is_known("nearmiss", "Note") and not is_known("flood", "Note")


@pytest.mark.skipif(not SHARED.is_file(), reason="../shared/legacy is absent: no tables to compare with")
def test_the_tables_are_the_analyzers_in_its_order():
    shipped = json.loads((resources.files("vlm_crash.evaluation") / "legacy_rules.json").read_text("utf-8"))
    del shipped["source"]
    assert json.dumps(shipped) == json.dumps(json.loads(SHARED.read_text("utf-8")))
