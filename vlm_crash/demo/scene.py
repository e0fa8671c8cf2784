"""Sample a scene: every field of the record and everything that the picture shows, from one seed.

In: a seed and, if wanted, the event. Out: a frozen `Scene`. Must hold: the event is drawn first and from its own stream, so crash and near miss
share every other distribution; a scene is the same on every platform (random.Random only).
Units: metres, seconds, radians. Road frame: x to the right of the road's centre line, s along the road from the ego vehicle, heading 0 = with ego.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from vlm_crash.demo.scenarios import CHANGING, IMPACTS, SCENARIOS, STOPPED, TURNING, Scenario, damaged_area
from vlm_crash.demo.texts import avoid_reason, crash_reason, note

EVENTS = ("crash", "nearmiss")
NEARMISS_FIELDS = (
    "Light_condition", "Weather", "Road_surface_condition", "Road_type", "Road_flat", "Lanes", "Traffic_condition", "Guilty", "Avoid_reason",
)  # fmt: skip
CRASH_FIELDS = (
    "Light_condition", "Weather", "Road_surface_condition", "Road_type", "Road_flat", "Lanes", "Traffic_condition",
    "Ego_pre_avoid_movement", "Other_pre_avoid_movement", "Guilty", "Crash_type", "Type_of_impact", "Crash_with", "Crash_vehicle_type",
    "Total_number_of_vehicles", "Crash_reason", "Other_most_damaged_area", "Crash_severity", "Note",
)  # fmt: skip
FPS = (10, 12, 15)
EGO_HALF_WIDTH = 0.95
HOOD = 2.6  # metres from the camera to the ego vehicle's front
CUE_LEAD = 1.0  # seconds before the end at which a near miss turns away from its crash

# (length, half width, height) of what ego can meet
SIZES: Mapping[str, tuple[float, float, float]] = {
    "Sedan": (4.5, 0.9, 1.4), "SUV": (4.6, 1.0, 2.0), "Van": (5.2, 1.05, 2.7), "Truck": (7.5, 1.25, 3.6),
    "Motorcycle": (2.5, 0.45, 2.1), "Not_a_vehicle": (0.7, 0.35, 1.85),
}  # fmt: skip
CRASH_WITH = {
    "Sedan": "Passenger_vehicle", "SUV": "Passenger_vehicle", "Van": "Passenger_vehicle", "Truck": "Truck",
    "Motorcycle": "Motorcycle", "Not_a_vehicle": "Pedestrian",
}  # fmt: skip
_SURFACES = {  # given the weather: Dry, Wet, Icy, Snowy
    "Clear": (50, 15, 18, 17), "Cloudy": (50, 15, 18, 17), "Rainy": (0, 80, 20, 0), "Foggy": (45, 20, 20, 15), "Snowy": (0, 10, 35, 55),
}  # fmt: skip
_ROADS = (
    "Highway/Freeway",
    "Road_segement",
    "Rural_road",
    "Parking_lot",
    "Signalized_intersection",
    "nonSignalized_intersection",
)
_ROAD_WEIGHTS = {  # of _ROADS, given whether somebody comes from the side
    False: (27, 15, 15, 15, 14, 14), True: (0, 17, 17, 20, 23, 23),
}  # fmt: skip
PAINTS = (
    (200, 40, 40), (40, 70, 190), (235, 235, 235), (30, 32, 36), (150, 155, 160), (30, 120, 70), (225, 180, 40), (120, 60, 140),
    (230, 120, 30), (90, 60, 40), (60, 160, 190), (190, 170, 130),
)  # fmt: skip

T = TypeVar("T")
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Look:
    """What varies without meaning (camera, colours, noise) and the geometry of the road."""

    exposure: float
    camera_height: float
    focal: float  # in picture widths
    horizon: float  # in picture heights
    noise: float
    hood: float  # in picture heights
    hood_paint: Colour
    ground_hue: float
    asphalt: int
    lane_width: float
    bend: float  # curvature, 1/m
    grade: float  # of the hill ahead
    mirrored: bool
    two_way: bool
    ours: tuple[int, ...]  # lanes of ego's direction
    crossing_s: float  # where the cross road lies, metres from ego at time 0
    randoms: tuple[float, ...]


@dataclass(frozen=True)
class Track:
    """The path of a road user relative to ego up to the contact; see motion.py."""

    kind: str
    paint: Colour
    s_contact: float
    x_start: float
    x_contact: float
    closing: float  # m/s along the road
    cross: float  # m/s across it
    heading_start: float
    heading_contact: float


@dataclass(frozen=True)
class Motion:
    impact_s: float
    change_s: float  # how long a lane change or a turn lasts
    ego_speed: float
    ego_x_start: float
    ego_x_contact: float
    other: Track
    third: Track | None
    apart: tuple[float, float]  # (x, s) by which a near miss opens


@dataclass(frozen=True)
class Extra:
    """A vehicle of the background traffic; the speed is relative to the road."""

    kind: str
    paint: Colour
    x: float
    s: float
    speed: float
    oncoming: bool


@dataclass(frozen=True)
class Scene:
    """A scene with its truth: `values` holds every field of `event`, as written into the CSV."""

    seed: int
    event: str
    scenario: Scenario
    values: Mapping[str, str]
    truth: Mapping[str, str]  # all crash fields, also of a near miss: what the drawing follows
    duration_s: float
    fps: int
    look: Look
    motion: Motion
    traffic: tuple[Extra, ...]


def _pick(rng: Random, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
    return rng.choices(options, weights)[0]


def lane_centre(index: float, lanes: int, lane_width: float) -> float:
    """x of a lane's middle in metres, lanes counted from the left.

    >>> [lane_centre(i, 2, 3.5) for i in (0, 1)]
    [-1.75, 1.75]
    """
    return (index - (lanes - 1) / 2) * lane_width


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
    motion, from_left = _sample_motion(rng, scenario, look, truth, lanes, duration_s)
    crossing_s = motion.impact_s * motion.ego_speed + (
        motion.other.s_contact if scenario.group in ("cross", "turn", "block") else rng.uniform(6, 14)
    )
    look = Look(**{**look.__dict__, "crossing_s": max(crossing_s, 9.0)})
    traffic = _sample_traffic(rng, look, truth, lanes, motion)
    _finish(rng, scenario, truth, look, motion, from_left)
    fields = CRASH_FIELDS if event == "crash" else NEARMISS_FIELDS
    values = {name: truth[name] for name in fields}
    return Scene(seed, event, scenario, values, truth, duration_s, fps, look, motion, traffic)


def _sample_conditions(rng: Random, scenario: Scenario) -> dict[str, str]:
    weather = rng.choice(tuple(_SURFACES))
    walker = scenario.group == "walk"
    kind = (
        "Not_a_vehicle" if walker else _pick(rng, ("Sedan", "SUV", "Van", "Truck", "Motorcycle"), (21, 18, 17, 23, 21))
    )
    side = scenario.group in ("cross", "turn", "walk", "block")
    road = _pick(rng, _ROADS, _ROAD_WEIGHTS[side])
    allowed = [lanes for lanes in (1, 2, 3, 4) if lanes >= max(scenario.min_lanes, 2 if road == _ROADS[0] else 1)]
    lane_weights = {1: 2.4, 2: 1.0, 3: 1.0, 4: 1.1}
    third = rng.random() < (0.4 if walker else 0.52)
    severities = ("Property_damage_only", "Injury", "Fatal")
    return {
        "Light_condition": rng.choice(("Daylight", "Dark_lighted", "Dark_unlighted", "Dawn_dusk")),
        "Weather": weather,
        "Road_surface_condition": _pick(rng, ("Dry", "Wet", "Icy", "Snowy"), _SURFACES[weather]),
        "Road_type": road,
        "Road_flat": rng.choice(("Flat", "Slope", "Curve")),
        "Lanes": str(_pick(rng, allowed, [lane_weights[lanes] for lanes in allowed])),
        "Traffic_condition": rng.choice(("Light_traffic", "Moderate_traffic", "Heavy_traffic")),
        "Ego_pre_avoid_movement": scenario.ego,
        "Other_pre_avoid_movement": scenario.other,
        "Guilty": scenario.guilty,
        "Crash_type": IMPACTS[scenario.group][0],
        "Type_of_impact": IMPACTS[scenario.group][1],
        "Crash_with": CRASH_WITH[kind],
        "Crash_vehicle_type": kind,
        "Total_number_of_vehicles": str((1 if walker else 2) + third),
        "Crash_severity": _pick(rng, severities, (0, 1, 1) if walker else (40, 30, 30)),
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
        focal=rng.uniform(0.78, 0.95),
        horizon=rng.uniform(0.44, 0.51),
        noise=rng.uniform(1.0, 5.0),
        hood=rng.uniform(0.05, 0.11),
        hood_paint=rng.choice(PAINTS),
        ground_hue=rng.random(),
        asphalt=rng.randint(82, 118),
        lane_width=rng.uniform(3.4, 3.6) if lanes > 1 else rng.uniform(3.6, 4.2),
        bend=sign * rng.uniform(0.018, 0.03) if flat == "Curve" else rng.uniform(-0.0006, 0.0006),
        grade=(rng.uniform(0.17, 0.24) if sign > 0 else -rng.uniform(0.09, 0.13)) if flat == "Slope" else 0.0,
        mirrored=rng.random() < 0.5,
        two_way=two_way and lanes > 1,
        ours=ours,
        crossing_s=0.0,
        randoms=tuple(rng.random() for _ in range(64)),
    )


def _sample_motion(
    rng: Random, scenario: Scenario, look: Look, truth: Mapping[str, str], lanes: int, duration_s: float
) -> tuple[Motion, bool]:
    """The paths of ego and the other in the unmirrored picture, and whether the other comes from the left."""
    impact_s = duration_s - rng.uniform(0.78, 0.92)
    kind = truth["Crash_vehicle_type"]
    length, half_width, _ = SIZES[kind]
    speed = 0.0 if scenario.ego == STOPPED else rng.uniform(4.5, 8.0) * (0.7 if scenario.group == "walk" else 1.0)
    left = rng.random() < 0.5
    ego_x, other_x, ego_end, other_end, left = _lateral(rng, scenario, look, lanes, half_width, left)
    side = -1 if left else 1
    closing, cross, heading_start, heading_end, s_contact = speed, 0.0, 0.0, 0.0, HOOD + length / 2
    match scenario.group:
        case "rear":
            if scenario.other == STOPPED:
                closing = max(speed, 4.0)
            else:
                closing = rng.uniform(1.6, 3.0)
        case "cross" | "block" | "walk":
            heading_start = heading_end = -side * math.pi / 2 + rng.uniform(-0.2, 0.2)
            s_contact = HOOD + half_width
            cross = 0.0 if scenario.group == "block" else -side * rng.uniform(0.3, 0.42) * speed
        case "turn":
            closing += rng.uniform(2.0, 3.5)
            heading_start, heading_end, s_contact = math.pi, math.pi * rng.uniform(0.5, 0.58), HOOD + half_width + 0.2
        case "swipe":
            closing, s_contact = rng.uniform(1.4, 2.4), 3.0 + length / 2
            heading_end = -side * rng.uniform(0.08, 0.16) if scenario.other == CHANGING else 0.0
        case "oncoming" | "head":
            closing += rng.uniform(2.5, 4.0)
            heading_start = heading_end = math.pi
            s_contact = HOOD + length / 2 if scenario.group == "head" else 2.4 + length / 2
            if scenario.other == CHANGING:
                heading_end = math.pi - rng.uniform(0.1, 0.2)
    track = Track(kind, rng.choice(PAINTS), s_contact, other_x, other_end, closing, cross, heading_start, heading_end)
    third_side = -side if scenario.group == "swipe" else rng.choice((-1, 1))
    third = (
        _sample_third(rng, track, scenario.group, third_side)
        if int(truth["Total_number_of_vehicles"]) > (1 if kind == "Not_a_vehicle" else 2)
        else None
    )
    apart_x = {
        "swipe": side * rng.uniform(1.2, 1.8),
        "oncoming": side * rng.uniform(1.4, 2.0),
        "head": side * rng.uniform(1.2, 2.2),
    }
    apart_s = {"swipe": 2.0, "oncoming": 1.0, "head": rng.uniform(3, 4.5)}.get(scenario.group, rng.uniform(4.0, 6.0))
    motion = Motion(
        impact_s, 0.45 * duration_s, speed, ego_x, ego_end, track, third, (apart_x.get(scenario.group, 0.0), apart_s)
    )
    return motion, left


def _lateral(
    rng: Random, scenario: Scenario, look: Look, lanes: int, half_width: float, left: bool
) -> tuple[float, float, float, float, bool]:
    """(ego start, other start, ego at contact, other at contact) in metres across the road, and the side the other is on."""
    ours, width = look.ours, look.lane_width
    span = 2 if scenario.ego_shift and scenario.other_shift and scenario.group in ("rear", "swipe") else 1
    if scenario.group in ("oncoming", "head", "turn"):  # the other drives on the left, next to the centre line
        ego_lane, left = (ours[0] if scenario.name != "turn_both" else ours[1]), True
        target = ego_lane - 1
    elif scenario.ego_shift or scenario.other_shift or scenario.group == "swipe":
        pairs = [(lane, lane + way * span) for lane in ours for way in (-1, 1) if lane + way * span in ours]
        ego_lane, target = rng.choice(pairs)
        left = target < ego_lane if scenario.group in ("rear", "swipe") else left
    else:
        ego_lane = target = rng.choice(ours)
    jitter = rng.uniform(-0.3, 0.3)
    ego_x, target_x = lane_centre(ego_lane, lanes, width) + jitter, lane_centre(target, lanes, width) + jitter
    way = target_x - ego_x
    if scenario.name == "head_stopped":
        return ego_x, ego_x, ego_x, ego_x + jitter, left
    if scenario.group in (
        "swipe",
        "oncoming",
    ):  # who moves over starts at the far side of its lane: a longer way is better seen
        ego_x -= math.copysign(0.7, way) * (scenario.ego_shift > 0)
        target_x += math.copysign(0.7, way) * (scenario.other_shift > 0)
        way = target_x - ego_x
        open_way = way - math.copysign(EGO_HALF_WIDTH + half_width, way)
        return ego_x, target_x, ego_x + scenario.ego_shift * open_way, target_x - scenario.other_shift * open_way, left
    if scenario.group == "head":
        return ego_x, target_x, ego_x + scenario.ego_shift * way, target_x - scenario.other_shift * way, left
    if scenario.group == "rear":
        ego_end = ego_x + way * scenario.ego_shift / span
        return (
            ego_x,
            (target_x if scenario.other_shift or scenario.ego_shift else ego_x),
            ego_end,
            ego_end + jitter,
            left,
        )
    ego_end = ego_x + way * scenario.ego_shift
    start = ego_end - width * 1.1 if scenario.group == "turn" else ego_end + jitter
    return ego_x, start, ego_end, ego_end + jitter, left


def _sample_third(rng: Random, other: Track, group: str, side: int) -> Track:
    """A further vehicle that ends at the other road user: given relative to it (x, s), at the start and at the end."""
    kind = _pick(rng, ("Sedan", "SUV", "Van"), (1, 1, 1))
    length, half_width, _ = SIZES[other.kind]
    sideways = group in ("cross", "turn", "block")
    if group == "swipe":
        x_end, s_end = side * 1.2, length / 2 + 1.8
    else:  # a little nearer than the other, so that it hides behind neither smoke nor fire
        x_end, s_end = side * ((length / 2 if sideways else half_width) + 1.25), -0.4 if not sideways else -1.2
    heading = math.pi + side * rng.uniform(0.5, 0.9)
    return Track(
        kind,
        rng.choice(PAINTS),
        s_end,
        x_end + side * rng.uniform(1.5, 3.0),
        x_end,
        rng.uniform(3.5, 5.0),
        0.0,
        math.pi,
        heading,
    )


def _sample_traffic(rng: Random, look: Look, truth: Mapping[str, str], lanes: int, motion: Motion) -> tuple[Extra, ...]:
    low, high = {"Light_traffic": (0, 1), "Moderate_traffic": (3, 4), "Heavy_traffic": (10, 12)}[
        truth["Traffic_condition"]
    ]
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
        speed = (
            0.0
            if abs(x) > edge
            else (
                -rng.uniform(2, 5) if oncoming else motion.ego_speed + rng.uniform(-0.5, 0.5) * (motion.ego_speed > 0)
            )
        )
        kind = _pick(rng, ("Sedan", "SUV", "Van"), (5, 3, 2))
        extras.append(Extra(kind, rng.choice(PAINTS), x, s + rng.uniform(-1.5, 1.5), speed, oncoming))
    return tuple(extras)


def _finish(
    rng: Random, scenario: Scenario, truth: dict[str, str], look: Look, motion: Motion, from_left: bool
) -> None:
    """The fields that need the geometry, and the texts."""
    if look.mirrored and truth["Other_pre_avoid_movement"] == TURNING:
        truth["Other_pre_avoid_movement"] = "Making_right_turn"
    truth["Other_most_damaged_area"] = damaged_area(scenario.group, from_left, look.mirrored)
    side = "left" if from_left != look.mirrored else "right"
    truth["Crash_reason"] = crash_reason(rng, scenario.name, truth, side)
    truth["Avoid_reason"] = avoid_reason(rng, scenario.name, truth, side)
    truth["Note"] = note(rng, truth)
