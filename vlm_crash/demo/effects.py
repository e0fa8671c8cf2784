"""What a crash leaves: debris, smoke, fire, broken glass.

In: the view after the contact, the struck road user's pose. Out: marks on the picture, the same whenever it is drawn.
"""

import math
from random import Random

from vlm_crash.demo.light import mix, scaled
from vlm_crash.demo.motion import Pose
from vlm_crash.demo.view import View
from vlm_crash.demo.world import SIZES, Colour

_SHARDS = {"Property_damage_only": 10, "Injury": 34, "Fatal": 44}
_FLAMES: tuple[tuple[Colour, float], ...] = (((226, 70, 18), 1.0), ((250, 150, 24), 0.68), ((255, 236, 120), 0.36))


def draw_debris(view: View, pose: Pose) -> None:
    """Shards that fly from the contact and then lie there; many after a severe crash."""
    scene, camera = view.scene, view.camera
    rng = Random(scene.seed + 11)
    age = max(0.0, view.t_s - scene.motion.impact_s)
    spread = 1 - math.exp(-age / 0.15)
    length, _, _ = SIZES[scene.motion.other.kind]
    for _ in range(_SHARDS[scene.truth["Crash_severity"]]):
        angle, far, size = rng.uniform(0, math.tau), rng.uniform(0.4, 3.0), rng.uniform(0.06, 0.15)
        x = pose.x + math.cos(angle) * far * spread * 1.2
        s = max(1.6, pose.s - min(length, 4.0) / 2 + math.sin(angle) * far * spread)
        u, v = camera.ground(x, s, rng.uniform(0, 1) * 2.2 * math.exp(-age * 2.5) * spread)
        r, turn = camera.pixels(size, s), rng.uniform(0, math.tau)
        corners = ((0.0, rng.uniform(0.9, 1.9)), (2.1, 1.0), (4.0, rng.uniform(0.5, 1.2)))
        points = [(u + r * reach * math.cos(turn + a), v + r * reach * math.sin(turn + a)) for a, reach in corners]
        colour = rng.choice(((30, 30, 32), (225, 225, 225), scene.motion.other.paint))
        view.draw.polygon(points, fill=view.light.lit(colour, s))


def draw_smoke(view: View, pose: Pose) -> None:
    """The plume over the struck vehicle: pale after an injury crash, black after a fatal one."""
    camera, rng = view.camera, Random(view.scene.seed + 23)
    fatal = view.scene.truth["Crash_severity"] == "Fatal"
    puff = (40, 38, 38) if fatal else (205, 205, 208)
    start = SIZES[view.scene.motion.other.kind][2] * 0.75 if fatal else 0.9
    for k in range(11):
        x = pose.x + rng.uniform(-0.9, 0.9) + 0.1 * k
        u, v = camera.ground(x, pose.s, start + 0.32 * k * pose.after + 0.1 * math.sin(9 * view.t_s + k))
        shade = scaled(mix(view.light.lit(puff, pose.s), puff, 0.35), rng.uniform(0.8, 1.1))
        view.disc(u, v, camera.pixels((0.35 + 0.09 * k) * pose.after, pose.s), shade)


def draw_fire(view: View, pose: Pose) -> None:
    """Flickering flames as wide as the struck vehicle."""
    flicker = view.random("fire")
    _, half_width, height = SIZES[view.scene.motion.other.kind]
    tall = 1.2 + 0.35 * height
    for colour, scale in _FLAMES:
        for k in range(5):
            x = pose.x + (k - 2) * 0.5 * max(0.8, half_width)
            tip = (tall + flicker.uniform(0.0, 1.3)) * scale * pose.after
            lean = flicker.uniform(-0.2, 0.2)
            outline = ((-0.5, 0.4), (-0.3, 0.5 + tip * 0.5), (lean, 0.5 + tip), (0.35, 0.5 + tip * 0.45), (0.5, 0.4))
            view.patch([(x + a * scale, pose.s, y) for a, y in outline], colour)


def draw_cracks(view: View) -> None:
    """The windscreen's cracks: none, some, or a web over the whole glass."""
    severity = view.scene.truth["Crash_severity"]
    if severity == "Property_damage_only":
        return
    rng = Random(view.scene.seed + 37)
    width, height = view.camera.width, view.camera.height
    big, rays = (1.0, 16) if severity == "Fatal" else (0.45, 9)
    u, v = width * rng.uniform(0.25, 0.75), height * rng.uniform(0.2, 0.6)
    line = max(1, round(width / 240))
    angles = [k * math.tau / rays + rng.uniform(-0.15, 0.15) for k in range(rays)]

    def at(angle: float, far: float) -> tuple[float, float]:
        return u + math.cos(angle) * far, v + math.sin(angle) * far

    for angle in angles:
        far, bend = width * big * rng.uniform(0.35, 0.6), angle + rng.uniform(-0.15, 0.15)
        view.draw.line([(u, v), at(angle, far / 2), at(bend, far)], fill=(228, 234, 238), width=line)
    for ring in (0.12, 0.24):
        points = [at(angle, width * big * ring) for angle in (*angles, angles[0])]
        view.draw.line(points, fill=(214, 222, 228), width=line)
