"""Sampling scenes: determinism, valid terms, balance, and that nothing but the picture tells the event."""

from collections import Counter
from statistics import fmean

import pytest

from vlm_crash.demo.scenarios import SCENARIOS, damaged_area
from vlm_crash.demo.scene import CRASH_WITH, TRAFFIC, sample_scene
from vlm_crash.demo.world import EVENTS, Scene
from vlm_crash.schema import UNKNOWN, Annotation, load_schema, parse, render
from vlm_crash.schema.terminology import to_term

NUM_SCENES = 2000
SCHEMA = load_schema()


@pytest.fixture(scope="module")
def scenes() -> dict[str, list[Scene]]:
    return {event: [sample_scene(seed, event) for seed in range(NUM_SCENES)] for event in EVENTS}


def test_a_seed_gives_one_scene() -> None:
    assert sample_scene(11) == sample_scene(11)
    assert sample_scene(11) != sample_scene(12)


def test_an_unknown_event_is_refused_with_the_allowed_ones() -> None:
    with pytest.raises(ValueError, match="'colision' is not one of crash, nearmiss"):
        sample_scene(0, "colision")


def test_events_are_drawn_half_and_half() -> None:
    share = fmean(sample_scene(seed).event == "crash" for seed in range(NUM_SCENES))
    assert 0.46 < share < 0.54


def test_every_field_is_known_and_in_the_vocabulary(scenes: dict[str, list[Scene]]) -> None:
    for event, drawn in scenes.items():
        for scene in drawn[:500]:
            assert tuple(scene.values) == tuple(SCHEMA.event(event).field_names)
            for field in SCHEMA.event(event).fields:
                value = scene.values[field.name]
                assert value not in ("", UNKNOWN)
                if field.vocabulary:
                    assert value in field.vocabulary
                if field.kind != "text":
                    assert to_term(field, value) == value


def test_records_survive_the_response_text(scenes: dict[str, list[Scene]]) -> None:
    for event, drawn in scenes.items():
        for scene in drawn[:100]:
            annotation = Annotation.of(SCHEMA, event, scene.values)
            parsed = parse(SCHEMA, render(SCHEMA, annotation))
            assert parsed.event == event
            assert {name: answer.value for name, answer in parsed.answers.items()} == dict(scene.values)


def test_no_term_is_a_safe_guess(scenes: dict[str, list[Scene]]) -> None:
    for event, drawn in scenes.items():
        majorities = []
        for field in SCHEMA.event(event).fields:
            counts = Counter(scene.values[field.name] for scene in drawn)
            majority = max(counts.values()) / len(drawn)
            assert majority <= 0.60, (event, field.name, counts)
            if field.kind != "text":
                majorities.append(majority)
        assert fmean(majorities) <= 0.42


def test_both_events_share_every_other_distribution(scenes: dict[str, list[Scene]]) -> None:
    """The event is drawn from its own stream: at the same seed all else is the same."""
    for crash, nearmiss in zip(scenes["crash"], scenes["nearmiss"], strict=True):
        assert (crash.duration_s, crash.fps, crash.look) == (nearmiss.duration_s, nearmiss.fps, nearmiss.look)
        assert (crash.motion, crash.traffic, crash.truth) == (nearmiss.motion, nearmiss.traffic, nearmiss.truth)


def test_lengths_and_rates(scenes: dict[str, list[Scene]]) -> None:
    for scene in scenes["crash"]:
        assert 4.0 <= scene.duration_s <= 8.0
        assert scene.fps in (10, 12, 15)
        assert scene.duration_s * scene.fps == pytest.approx(round(scene.duration_s * scene.fps))


def test_paints_say_nothing(scenes: dict[str, list[Scene]]) -> None:
    """The most frequent paint of each kind of road user stays near one in twelve."""
    by_kind: dict[str, Counter[tuple[int, int, int]]] = {}
    for scene in scenes["crash"]:
        by_kind.setdefault(scene.motion.other.kind, Counter())[scene.motion.other.paint] += 1
    for kind, counts in by_kind.items():
        assert max(counts.values()) / counts.total() < 0.2, kind


def test_fields_agree_with_what_is_drawn(scenes: dict[str, list[Scene]]) -> None:
    for scene in scenes["crash"]:
        values, motion = scene.values, scene.motion
        walker = values["Crash_with"] == "Pedestrian"
        assert values["Crash_with"] == CRASH_WITH[motion.other.kind]
        assert int(values["Total_number_of_vehicles"]) == (1 if walker else 2) + (motion.third is not None)
        assert (values["Ego_pre_avoid_movement"] == "Stopped") == (motion.ego_speed == 0)
        assert (values["Ego_pre_avoid_movement"] == "Changing_lanes") == (motion.ego_x_start != motion.ego_x_contact)
        low, high = TRAFFIC[values["Traffic_condition"]]
        assert low <= len(scene.traffic) <= high
        assert scene.scenario.min_lanes <= int(values["Lanes"])


def test_scenario_names_are_unique_and_the_zebra_decides_the_pedestrians_guilt() -> None:
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)
    assert {s.guilty for s in SCENARIOS if s.group == "walk" and s.zebra} == {"Yes"}
    assert "Yes" not in {s.guilty for s in SCENARIOS if s.group == "walk" and not s.zebra}


@pytest.mark.parametrize("group", ["cross", "turn", "block", "walk", "swipe", "oncoming"])
def test_the_damaged_side_is_mirrored_with_the_picture(group: str) -> None:
    sides = {damaged_area(group, from_left=True, mirrored=mirrored) for mirrored in (False, True)}
    assert sides == {"Left_side", "Right_side"}
