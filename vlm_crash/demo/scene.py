"""Sample a scene: every field of the record and everything that the picture shows, from one seed.

In: a seed and, if wanted, the event. Out: a frozen `Scene`. Must hold: the event is drawn from a stream of its own, so
crash and near miss share every other distribution; a scene is the same on every platform (random.Random only).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from random import Random
from typing import TypeVar

from vlm_crash.demo.encounter import sample_motion
from vlm_crash.demo.scenarios import CHANGING, IMPACTS, SCENARIOS, TURNING, Scenario, damaged_area
from vlm_crash.demo.texts import avoid_reason, crash_reason, note
from vlm_crash.demo.world import EVENTS, PAINTS, Extra, Look, Motion, Scene, lane_centre
from vlm_crash.schema.fields import load_schema

FPS = (10, 12, 15)
LIGHTS = ("Daylight", "Dark_lighted", "Dark_unlighted", "Dawn_dusk")
SURFACES = ("Dry", "Wet", "Icy", "Snowy")
FORMS = ("Flat", "Slope", "Curve")
SEVERITIES = ("Property_damage_only", "Injury", "Fatal")
TRAFFIC = {"Light_traffic": (0, 1), "Moderate_traffic": (3, 4), "Heavy_traffic": (10, 12)}  # background vehicles
CRASH_WITH = {
    "Sedan": "Passenger_vehicle",
    "SUV": "Passenger_vehicle",
    "Van": "Passenger_vehicle",
    "Truck": "Truck",
    "Motorcycle": "Motorcycle",
    "Not_a_vehicle": "Pedestrian",
}
_VEHICLES = {"Sedan": 21, "SUV": 18, "Van": 17, "Truck": 23, "Motorcycle": 21}
_SURFACE_WEIGHTS = {  # of SURFACES, given the weather
    "Clear": (50, 15, 18, 17),
    "Cloudy": (50, 15, 18, 17),
    "Rainy": (0, 80, 20, 0),
    "Foggy": (45, 20, 20, 15),
    "Snowy": (0, 10, 35, 55),
}
HIGHWAY = "Highway/Freeway"
_ROAD_WEIGHTS = {  # when all go along the road, when somebody comes from the side
    HIGHWAY: (27, 0),
    "Road_segement": (15, 17),
    "Rural_road": (15, 17),
    "Parking_lot": (15, 20),
    "Signalized_intersection": (14, 23),
    "nonSignalized_intersection": (14, 23),
}
_LANE_WEIGHTS = {1: 2.4, 2: 1.0, 3: 1.0, 4: 1.1}  # one lane is only possible without lane changes, hence its weight

T = TypeVar("T")


def _pick(rng: Random, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
    return rng.choices(options, weights)[0]


def sample_scene(seed: int, event: str | None = None) -> Scene:
    """The scene of `seed`; `event` None: crash or near miss, half and half.

    >>> sample_scene(3) == sample_scene(3), sample_scene(3, "crash").event
    (True, 'crash')
    """
    if event is not None and event not in EVENTS:
        raise ValueError(f"event {event!r} is not one of {', '.join(EVENTS)}")
    event = event or Random(f"event of {seed}").choice(EVENTS)
    rng = Random(f"scene of {seed}")
    scenario = _pick(rng, SCENARIOS, [scenario.weight for scenario in SCENARIOS])
    truth = _sample_conditions(rng, scenario)
    fps = rng.choice(FPS)
    duration_s = round(rng.uniform(4.0, 8.0) * fps) / fps
    lanes = int(truth["Lanes"])
    look = _sample_look(rng, scenario, truth, lanes)
    motion, from_left = sample_motion(rng, scenario, look, truth, lanes, duration_s)
    sideways = scenario.group in ("cross", "turn", "block")
    beyond = motion.other.s_contact if sideways else rng.uniform(6, 14)
    look = replace(look, crossing_s=max(motion.impact_s * motion.ego_speed + beyond, 12.0))
    traffic = _sample_traffic(rng, look, truth, lanes, motion)
    _finish(rng, scenario, truth, look, from_left)
    values = {name: truth[name] for name in field_names(event)}
    return Scene(seed, event, scenario, values, truth, duration_s, fps, look, motion, traffic)


@lru_cache
def field_names(event: str) -> tuple[str, ...]:
    """The event's fields in order, from the shipped schema."""
    return tuple(load_schema().event(event).field_names)


def _sample_conditions(rng: Random, scenario: Scenario) -> dict[str, str]:
    weather = rng.choice(tuple(_SURFACE_WEIGHTS))
    walker = scenario.group == "walk"
    kind = "Not_a_vehicle" if walker else _pick(rng, tuple(_VEHICLES), tuple(_VEHICLES.values()))
    side = scenario.group in ("cross", "turn", "walk", "block")
    road = _pick(rng, tuple(_ROAD_WEIGHTS), [weights[side] for weights in _ROAD_WEIGHTS.values()])
    fewest = max(scenario.min_lanes, 2 if road == HIGHWAY else 1)
    allowed = [lanes for lanes in _LANE_WEIGHTS if lanes >= fewest]
    third = rng.random() < (0.4 if walker else 0.52)
    return {
        "Light_condition": rng.choice(LIGHTS),
        "Weather": weather,
        "Road_surface_condition": _pick(rng, SURFACES, _SURFACE_WEIGHTS[weather]),
        "Road_type": road,
        "Road_flat": rng.choice(FORMS),
        "Lanes": str(_pick(rng, allowed, [_LANE_WEIGHTS[lanes] for lanes in allowed])),
        "Traffic_condition": rng.choice(tuple(TRAFFIC)),
        "Ego_pre_avoid_movement": scenario.ego,
        "Other_pre_avoid_movement": scenario.other,
        "Guilty": scenario.guilty,
        "Crash_type": IMPACTS[scenario.group][0],
        "Type_of_impact": IMPACTS[scenario.group][1],
        "Crash_with": CRASH_WITH[kind],
        "Crash_vehicle_type": kind,
        "Total_number_of_vehicles": str((1 if walker else 2) + third),
        "Crash_severity": _pick(rng, SEVERITIES, (0, 1, 1) if walker else (40, 30, 30)),
    }


def _sample_look(rng: Random, scenario: Scenario, truth: Mapping[str, str], lanes: int) -> Look:
    flat = truth["Road_flat"]
    sign = rng.choice((-1, 1))
    two_way = scenario.two_way if scenario.two_way is not None else rng.random() < 0.5
    if lanes == 1:
        ours: tuple[int, ...] = (0,)
    elif two_way:
        first = 1 if lanes == 3 and (scenario.ego == CHANGING or rng.random() < 0.5) else (lanes + 1) // 2
        ours = tuple(range(first, lanes))
    else:
        ours = tuple(range(lanes))
    return Look(
        exposure=rng.uniform(0.78, 1.22),
        camera_height=rng.uniform(1.35, 1.9),
        # A wide lens and slim lanes: all lanes of the road are in the picture.
        focal=rng.uniform(0.58, 0.68),
        horizon=rng.uniform(0.44, 0.51),
        noise=rng.uniform(1.0, 5.0),
        hood=rng.uniform(0.05, 0.11),
        hood_paint=rng.choice(PAINTS),
        ground_hue=rng.random(),
        asphalt=rng.randint(82, 118),
        lane_width=rng.uniform(2.75, 2.95) if lanes > 1 else rng.uniform(3.3, 3.7),
        bend=sign * rng.uniform(0.018, 0.03) if flat == "Curve" else rng.uniform(-0.0006, 0.0006),
        grade=(rng.uniform(0.17, 0.24) if sign > 0 else -rng.uniform(0.09, 0.13)) if flat == "Slope" else 0.0,
        mirrored=rng.random() < 0.5,
        two_way=two_way and lanes > 1,
        ours=ours,
        crossing_s=0.0,
        randoms=tuple(rng.random() for _ in range(64)),
    )


def _sample_traffic(rng: Random, look: Look, truth: Mapping[str, str], lanes: int, motion: Motion) -> tuple[Extra, ...]:
    low, high = TRAFFIC[truth["Traffic_condition"]]
    busy = (motion.ego_x_start, motion.ego_x_contact)
    centres = [lane_centre(lane, lanes, look.lane_width) for lane in range(lanes)]
    edge = lanes * look.lane_width / 2
    rows = [x for x in centres if min(abs(x - b) for b in busy) > 1.8]
    rows += [-edge - 1.9, edge + 1.9] if len(rows) < 3 else []
    slots = [(x, s) for x in rows for s in (10.0, 16.0, 22.0, 29.0, 37.0, 46.0)]
    rng.shuffle(slots)
    extras = []
    for x, s in slots[: rng.randint(low, high)]:
        oncoming = look.two_way and x < lane_centre(look.ours[0] - 0.5, lanes, look.lane_width) and x > -edge
        if abs(x) > edge:  # beside the road: parked
            speed = 0.0
        elif oncoming:
            speed = -rng.uniform(2, 5)
        else:
            speed = motion.ego_speed + rng.uniform(-0.5, 0.5) * (motion.ego_speed > 0)
        kind = _pick(rng, ("Sedan", "SUV", "Van"), (5, 3, 2))
        extras.append(Extra(kind, rng.choice(PAINTS), x, s + rng.uniform(-1.5, 1.5), speed, oncoming))
    return tuple(extras)


def _finish(rng: Random, scenario: Scenario, truth: dict[str, str], look: Look, from_left: bool) -> None:
    """The fields that need the geometry, and the texts."""
    if look.mirrored and truth["Other_pre_avoid_movement"] == TURNING:
        truth["Other_pre_avoid_movement"] = "Making_right_turn"
    truth["Other_most_damaged_area"] = damaged_area(scenario.group, from_left, look.mirrored)
    side = "left" if from_left != look.mirrored else "right"
    truth["Crash_reason"] = crash_reason(rng, scenario.name, truth, side)
    truth["Avoid_reason"] = avoid_reason(rng, scenario.name, truth, side)
    truth["Note"] = note(rng, truth)
