"""Draw any moment of a scene.

In: a scene, seconds from its start, a size. Out: uint8 [H, W, 3]. Must hold: no state between moments; the same moment
is the same picture.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from vlm_crash.demo.effects import draw_cracks, draw_debris, draw_fire, draw_smoke
from vlm_crash.demo.ground import draw_ground, draw_light_pools
from vlm_crash.demo.motion import Pose, aftermath, approach_clock, lead_pose, other_pose, third_pose
from vlm_crash.demo.roadside import Item, roadside
from vlm_crash.demo.sensor import draw_hood, with_noise
from vlm_crash.demo.vehicles import Hit, draw_shadow, draw_vehicle, draw_walker
from vlm_crash.demo.view import View
from vlm_crash.demo.weather import draw_precipitation, draw_sky
from vlm_crash.demo.world import ORDINARY, Colour, Scene

_PARTS = {"Rear_center_bumper": "rear", "Front_center_bumper": "front", "Left_side": "left", "Right_side": "right"}
_MIRRORED = {"left": "right", "right": "left"}
_DEPTHS = {"Property_damage_only": 0.06, "Injury": 0.24, "Fatal": 0.3}
_NEAREST, _FARTHEST = 3.5, 51.5  # metres: traffic that has been passed comes again far ahead


def render_frame(scene: Scene, t_s: float, size: tuple[int, int] = (320, 180)) -> np.ndarray:
    """The picture at `t_s` seconds, uint8 [H, W, 3]; `size` is (width, height) in pixels."""
    view = View(scene, t_s, size)
    draw_sky(view)
    draw_ground(view)
    draw_light_pools(view)
    items = [*roadside(view), *_traffic(view), *_encounter(view)]
    for _, paint in sorted(items, key=lambda item: -item[0]):  # far ones first
        paint()
    after = aftermath(scene, t_s)
    if after:
        draw_debris(view, other_pose(scene, t_s))
    draw_precipitation(view)
    if after > 0.5:
        draw_cracks(view)
    draw_hood(view)
    return with_noise(view)


def _road_user(view: View, pose: Pose, kind: str, paint: Colour, hit: Hit | None = None) -> Item:
    def call() -> None:
        draw_shadow(view, pose, kind, paint)
        if kind == "Not_a_vehicle":
            draw_walker(view, pose, paint)
        else:
            draw_vehicle(view, pose, kind, paint, hit)

    return pose.s, call


def _traffic(view: View) -> Iterator[Item]:
    travelled = view.scene.motion.ego_speed * approach_clock(view.scene, view.t_s)
    for extra in view.scene.traffic:
        s = extra.s + extra.speed * view.t_s - travelled
        if extra.oncoming or extra.speed == 0:
            s = (s - _NEAREST) % (_FARTHEST - _NEAREST) + _NEAREST
        if s > _NEAREST:
            yield _road_user(view, Pose(extra.x, s, math.pi if extra.oncoming else 0.0), extra.kind, extra.paint)


def _encounter(view: View) -> Iterator[Item]:
    """The road user that ego meets, what burns of it, and the further vehicle."""
    scene, motion, severity = view.scene, view.scene.motion, view.scene.truth["Crash_severity"]
    if scene.event == ORDINARY:
        lead = lead_pose(scene, view.t_s)
        if lead is not None:
            yield _road_user(view, lead, "Sedan" if motion.other.kind == "Not_a_vehicle" else motion.other.kind,
                             motion.other.paint)  # fmt: skip
        return
    pose, third = other_pose(scene, view.t_s), third_pose(scene, view.t_s)
    part = _PARTS[scene.truth["Other_most_damaged_area"]]
    part = _MIRRORED.get(part, part) if scene.look.mirrored else part
    hit = Hit(part, _DEPTHS[severity] * pose.after, scene.seed) if pose.after else None
    yield _road_user(view, pose, motion.other.kind, motion.other.paint, hit)
    if hit and severity != "Property_damage_only" and motion.other.kind != "Not_a_vehicle":
        cloud = replace(pose, s=max(2.4, pose.s - 0.9))
        yield cloud.s, partial(draw_smoke, view, cloud)
        if severity == "Fatal":
            flames = replace(pose, s=max(2.3, pose.s - 1.0))
            yield flames.s, partial(draw_fire, view, flames)
    if third and motion.third:
        hit = Hit("front", 0.15 * third.after, scene.seed + 1) if third.after else None
        yield _road_user(view, third, motion.third.kind, motion.third.paint, hit)
