"""How ego and the other come together: lanes, speeds and paths of one encounter.

In: a scenario, the road, the sampled terms. Out: a `Motion`. Must hold: nothing here knows the event.
"""

import math
from collections.abc import Mapping
from random import Random

from vlm_crash.demo.scenarios import CHANGING, STOPPED, Scenario
from vlm_crash.demo.world import EGO_HALF_WIDTH, HOOD, PAINTS, SIZES, Look, Motion, Track, lane_centre


def sample_motion(
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
            closing = speed if scenario.other == STOPPED else rng.uniform(1.6, 3.0)
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
    third = None
    if int(truth["Total_number_of_vehicles"]) > (1 if kind == "Not_a_vehicle" else 2):
        third = _sample_third(rng, track, scenario.group, third_side)
    apart_x = {
        "swipe": side * rng.uniform(1.2, 1.8),
        "oncoming": side * rng.uniform(1.4, 2.0),
        "head": side * rng.uniform(1.2, 2.2),
    }
    apart_s = {"swipe": 2.0, "oncoming": 1.0, "head": rng.uniform(3, 4.5)}
    apart = (apart_x.get(scenario.group, 0.0), apart_s.get(scenario.group, rng.uniform(4.0, 6.0)))
    return Motion(impact_s, 0.45 * duration_s, speed, ego_x, ego_end, track, third, apart), left


def _lateral(
    rng: Random, scenario: Scenario, look: Look, lanes: int, half_width: float, left: bool
) -> tuple[float, float, float, float, bool]:
    """Metres across the road of ego and the other at the start, then at the contact; and whether the other is left."""
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
    if scenario.group in ("swipe", "oncoming"):
        # who moves over starts at the far side of its lane: a longer way is better seen
        ego_x -= math.copysign(0.7, way) * (scenario.ego_shift > 0)
        target_x += math.copysign(0.7, way) * (scenario.other_shift > 0)
        way = target_x - ego_x
        open_way = way - math.copysign(EGO_HALF_WIDTH + half_width, way)
        return ego_x, target_x, ego_x + scenario.ego_shift * open_way, target_x - scenario.other_shift * open_way, left
    if scenario.group == "head":
        return ego_x, target_x, ego_x + scenario.ego_shift * way, target_x - scenario.other_shift * way, left
    if scenario.group == "rear":
        ego_end = ego_x + way * scenario.ego_shift / span
        other_x = target_x if scenario.other_shift or scenario.ego_shift else ego_x
        return ego_x, other_x, ego_end, ego_end + jitter, left
    ego_end = ego_x + way * scenario.ego_shift
    start = ego_end - width * 1.1 if scenario.group == "turn" else ego_end + jitter
    return ego_x, start, ego_end, ego_end + jitter, left


def _sample_third(rng: Random, other: Track, group: str, side: int) -> Track:
    """A further vehicle that ends at the other road user: given relative to it (x, s), at the start and at the end."""
    kind = rng.choices(("Sedan", "SUV", "Van"))[0]
    length, half_width, _ = SIZES[other.kind]
    sideways = group in ("cross", "turn", "block")
    if group == "swipe":
        x_end, s_end = side * 1.2, length / 2 + 1.8
    else:  # a little nearer than the other, so that it hides behind neither smoke nor fire
        x_end, s_end = side * ((length / 2 if sideways else half_width) + 1.25), -0.4 if not sideways else -1.2
    heading = math.pi + side * rng.uniform(0.5, 0.9)
    paint, x_start, closing = rng.choice(PAINTS), x_end + side * rng.uniform(1.5, 3.0), rng.uniform(3.5, 5.0)
    return Track(kind, paint, s_end, x_start, x_end, closing, 0.0, math.pi, heading)
