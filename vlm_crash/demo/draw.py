"""Draw any moment of a scene.

In: a scene, seconds from its start, a size. Out: uint8 [H, W, 3]. Must hold: no state between moments; the same moment is the same picture.
"""

from dataclasses import replace
from functools import partial

import numpy as np
from PIL import Image, ImageDraw

from vlm_crash.demo import effects, ground, roadside, sensor, weather
from vlm_crash.demo.camera import Camera, Light
from vlm_crash.demo.motion import Pose, aftermath, approach_clock, ego_state, other_pose, third_pose
from vlm_crash.demo.vehicles import Hit, draw_shadow, draw_vehicle, draw_walker
from vlm_crash.demo.world import Scene

_DENTS = {"Rear_center_bumper": "rear", "Front_center_bumper": "front", "Left_side": "left", "Right_side": "right"}
_DEPTHS = {"Property_damage_only": 0.06, "Injury": 0.24, "Fatal": 0.3}
_MIRRORED = {"left": "right", "right": "left"}


def render_frame(scene: Scene, t_s: float, size: tuple[int, int] = (320, 180)) -> np.ndarray:
    """The picture at `t_s` seconds, uint8 [H, W, 3]; `size` is (width, height) in pixels."""
    ego = ego_state(scene, t_s)
    camera, light = Camera(scene.look, ego, size), Light(scene)
    image = Image.new("RGB", size)
    draw = ImageDraw.Draw(image)
    weather.draw_sky(draw, scene, camera, light)
    ground.draw_ground(draw, scene, camera, light, ego.travelled)
    ground.draw_light_pools(draw, scene, camera, light, ego.travelled)
    items = list(roadside.roadside(draw, scene, camera, light, ego.travelled))
    items += _road_users(draw, scene, camera, light, t_s)
    for _, paint in sorted(items, key=lambda item: -item[0]):
        paint()
    after = aftermath(scene, t_s)
    if after:
        pose = other_pose(scene, t_s)
        effects.draw_debris(draw, scene, camera, light, pose, t_s)
    weather.draw_precipitation(draw, scene, camera, light, t_s)
    effects.draw_cracks(draw, scene, camera, after)
    sensor.draw_hood(draw, scene, camera, light)
    return sensor.add_noise(np.asarray(image), scene, t_s)


def _road_users(
    draw: ImageDraw.ImageDraw, scene: Scene, camera: Camera, light: Light, t_s: float
) -> list[roadside.Item]:
    wet = scene.truth["Road_surface_condition"] == "Wet"
    items: list[roadside.Item] = []

    def add(pose: Pose, kind: str, paint: tuple[int, int, int], hit: Hit | None = None) -> None:
        def call() -> None:
            draw_shadow(draw, camera, light, pose, kind, wet, paint)
            if kind == "Not_a_vehicle":
                draw_walker(draw, camera, light, pose, paint, t_s)
            else:
                draw_vehicle(draw, camera, light, pose, kind, paint, hit)

        items.append((pose.s, call))

    clock = approach_clock(scene, t_s)
    for extra in scene.traffic:
        s = extra.s + extra.speed * t_s - scene.motion.ego_speed * clock
        if extra.oncoming or extra.speed == 0:
            s = (s - 3.5) % 48.0 + 3.5  # what has passed comes again far ahead
        if s > 3.5:
            add(Pose(extra.x, s, 3.14159 if extra.oncoming else 0.0), extra.kind, extra.paint)
    pose, motion = other_pose(scene, t_s), scene.motion
    dent = _DENTS[scene.truth["Other_most_damaged_area"]]
    if scene.look.mirrored:
        dent = _MIRRORED.get(dent, dent)
    depth = _DEPTHS[scene.truth["Crash_severity"]] * pose.after
    add(pose, motion.other.kind, motion.other.paint, Hit(dent, depth, scene.seed) if pose.after else None)
    if pose.after and scene.truth["Crash_severity"] != "Property_damage_only" and motion.other.kind != "Not_a_vehicle":
        cloud = replace(pose, s=max(2.4, pose.s - 0.9))
        items.append((cloud.s, partial(effects.draw_smoke, draw, scene, camera, light, cloud, t_s)))
        if scene.truth["Crash_severity"] == "Fatal":
            flames = replace(pose, s=max(2.3, pose.s - 1.0))
            items.append((flames.s, partial(effects.draw_fire, draw, scene, camera, flames, t_s)))
    third = third_pose(scene, t_s)
    if third is not None and motion.third is not None:
        add(
            third,
            motion.third.kind,
            motion.third.paint,
            Hit("front", 0.15 * third.after, scene.seed + 1) if third.after else None,
        )
    return items
