import subprocess
import sys

import pytest

from vlm_crash.schema import Schema, SchemaError, load_schema

_CRASH = """Light_condition Weather Road_surface_condition Road_type Road_flat Lanes Traffic_condition
Ego_pre_avoid_movement Other_pre_avoid_movement Guilty Crash_type Type_of_impact Crash_with Crash_vehicle_type
Total_number_of_vehicles Crash_reason Other_most_damaged_area Crash_severity Note"""
CRASH = _CRASH.split()
NEARMISS = [*CRASH[:7], "Guilty", "Avoid_reason"]
CLOSED = {
    "Light_condition": "Daylight, Dark_lighted, Dark_unlighted, Dawn_dusk, other",
    "Weather": "Clear, Cloudy, Rainy, Foggy, Snowy, other",
    "Road_surface_condition": "Dry, Wet, Icy, Snowy, Slippery, Other",
    "Road_type": "Highway/Freeway, Road_segement, Rural_road, Unpaved_road, Parking_lot, Signalized_intersection, "
    "nonSignalized_intersection, other",
    "Road_flat": "Flat, Slope, Curve, other",
    "Traffic_condition": "Light_traffic, Moderate_traffic, Heavy_traffic",
    "Guilty": "Yes, No, Both",
    "Crash_type": "Angle, Rear_end, Sideswipe, Head_on, other",
    "Type_of_impact": "Front_to_side, Front_to_rear, Sideswipe_same_direction, Sideswipe_opposite_direction, Head_on, "
    "other",
    "Crash_severity": "Property_damage_only, Injury, Fatal, other",
}
OPEN = [
    "Ego_pre_avoid_movement",
    "Other_pre_avoid_movement",
    "Crash_with",
    "Crash_vehicle_type",
    "Other_most_damaged_area",
]
# Exact match in the old evaluation; all others were compared by cosine.
_OLD_EXACT = """Light_condition Weather Road_surface_condition Road_type Road_flat Lanes Crash_type Type_of_impact
Crash_with Crash_vehicle_type Total_number_of_vehicles Crash_severity"""
OLD_EXACT = _OLD_EXACT.split()


def test_the_shipped_schema_has_the_fields_in_the_old_order(shipped):
    assert shipped.event_names == ("crash", "nearmiss")
    assert list(shipped.event("crash").field_names) == CRASH
    assert list(shipped.event("nearmiss").field_names) == NEARMISS
    assert shipped.event("crash").field("Weather") is shipped.event("nearmiss").field("Weather")


def test_the_shipped_vocabularies(shipped):
    closed = {field.name: ", ".join(field.vocabulary) for field in shipped.fields if field.closed}
    assert closed == CLOSED
    assert [f.name for f in shipped.fields if f.kind == "categorical" and not f.closed] == OPEN
    assert [f.name for f in shipped.fields if f.kind == "count"] == ["Lanes", "Total_number_of_vehicles"]
    assert [f.name for f in shipped.fields if f.kind == "text"] == ["Crash_reason", "Note", "Avoid_reason"]
    assert not any(field.vocabulary for field in shipped.fields if not field.closed)


def test_the_old_metric_of_each_field(shipped):
    assert [f.name for f in shipped.fields if f.old_metric == "exact_match"] == OLD_EXACT


def test_columns_of_the_old_csvs(shipped):
    assert shipped.field("Crash_with").columns == ("Crash with", "Crash_with")
    assert shipped.field("Road_type").columns == ("Road_type",)


def test_unknown_names_are_refused_with_the_nearest(shipped):
    with pytest.raises(ValueError, match=r"'near_miss' is not an event.*nearest: 'nearmiss'"):
        shipped.event("near_miss")
    with pytest.raises(ValueError, match=r"'Wether' is not a field.*nearest: 'Weather'"):
        shipped.field("Wether")
    with pytest.raises(ValueError, match=r"'Note' is not a field of 'nearmiss'"):
        shipped.event("nearmiss").field("Note")


def test_vocabularies_of_a_dataset_fill_open_fields_only(shipped):
    filled = shipped.with_vocabularies(
        {"Crash_with": ["Truck", "truck ", " Pick-up\ntruck", "pick_up truck", "nan", "Unknown", ""]}
    )
    assert filled.field("Crash_with").vocabulary == ("Truck", "Pick-up truck")
    assert not filled.field("Crash_with").closed
    assert shipped.field("Crash_with").vocabulary == ()
    with pytest.raises(ValueError, match=r"'Weather'.*closed.*'Lanes'.*a count.*'Crash_wit'.*nearest: 'Crash_with'"):
        shipped.with_vocabularies({"Weather": ["x"], "Lanes": ["2"], "Crash_wit": ["x"]})


@pytest.mark.parametrize("name", ["shipped", "filled", "mine"])
def test_a_schema_survives_its_dict(name, request):
    schema = request.getfixturevalue(name)
    again = Schema.from_dict(schema.to_dict(), "elsewhere")
    assert again == schema
    assert again.fingerprint == schema.fingerprint
    assert again.to_dict() == schema.to_dict()


def test_the_fingerprint_changes_with_what_is_said_and_stays_otherwise(shipped, filled, mine):
    assert len({shipped.fingerprint, filled.fingerprint, mine.fingerprint}) == 3
    changed = shipped.to_dict()
    changed["fields"]["Weather"]["wordings"]["Clear"].append("bright")
    assert Schema.from_dict(changed).fingerprint != shipped.fingerprint
    turned = filled.to_dict()
    turned["events"] = dict(reversed(turned["events"].items()))
    assert Schema.from_dict(turned).fingerprint != filled.fingerprint
    assert load_schema(shipped.source).fingerprint == shipped.fingerprint


def test_the_form_is_what_a_model_writes(shipped, filled, mine):
    assert shipped.form == filled.form != mine.form
    changed = shipped.to_dict()
    changed["fields"]["Weather"]["wordings"].setdefault("Rainy", []).append("pouring down")
    assert Schema.from_dict(changed).form == shipped.form
    changed["fields"]["Weather"]["label"] = "Sky"
    assert Schema.from_dict(changed).form != shipped.form


def test_fingerprint_is_the_same_in_another_process(shipped):
    code = "from vlm_crash.schema import load_schema; print(load_schema().fingerprint)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == shipped.fingerprint


def test_importing_the_schema_loads_nothing_heavy():
    code = "import sys, vlm_crash.schema; print(*sorted({'torch', 'numpy', 'pandas', 'lightning'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_schema_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.yaml: no such file"):
        load_schema(tmp_path / "nothing.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"events:\n  fall: [\n", r"mine.yaml, line 3, column 1: not YAML \(.+\); mend it there, as in .*crash.yaml"),
        (b"events:\n\tfall: 1\n", r"mine.yaml, line 2, column 1: not YAML \(.*cannot start any token\)"),
        (b"a: \x00", r"mine.yaml, line 1, column 4: not YAML \(.*not allowed\)"),
        (b"fields: {A: 1, A: 2}", "'A' is given twice"),
        (b"a: 1\nfields: \xff\xfe", "mine.yaml, line 2: not UTF-8 text; give a YAML, saved as UTF-8"),
        (b"- a\n- b\n", "must hold the keys `events` and `fields`"),
        (b"", "must hold the keys `events` and `fields`"),
    ],
)
def test_a_file_that_is_no_schema(tmp_path, content, message):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(SchemaError, match=message) as caught:
        load_schema(path)
    assert "mine.yaml" in str(caught.value)


def test_a_folder_is_no_schema(tmp_path):
    with pytest.raises(SchemaError, match=rf"schema {tmp_path}: a folder; give a YAML such as .*crash.yaml"):
        load_schema(tmp_path)


def test_bare_yes_and_no_stay_words(mine):
    assert mine.field("Helmet").vocabulary == ("Yes", "No", "Some")
