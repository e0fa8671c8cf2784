"""What a crash leaves: debris, smoke, fire, broken glass.

In: a scene after its contact, a camera, a light. Out: marks on the picture. Must hold: the same moment always looks the same.
"""

import math
from random import Random

from PIL.ImageDraw import ImageDraw

from vlm_crash.demo.camera import Camera, Light, mix, moment_random, scaled
from vlm_crash.demo.motion import Pose
from vlm_crash.demo.world import SIZES, Colour, Scene


def draw_debris(draw: ImageDraw, scene: Scene, camera: Camera, light: Light, pose: Pose, t_s: float) -> None:
    """Bits that fly from the contact and then lie there; many after a severe crash."""
    severity = scene.truth["Crash_severity"]
    count = {"Property_damage_only": 9, "Injury": 34, "Fatal": 44}[severity]
    rng = Random(scene.seed + 11)
    age = max(0.0, t_s - scene.motion.impact_s)
    reach = 1 - math.exp(-age / 0.15)
    length, half_width, _ = SIZES[scene.motion.other.kind]
    for _ in range(count):
        angle, reached, size = rng.uniform(0, math.tau), rng.uniform(0.4, 3.0), rng.uniform(0.05, 0.13)
        x = pose.x + math.cos(angle) * reached * reach * 1.2
        s = max(1.6, pose.s - min(length, 4.0) / 2 + math.sin(angle) * reached * reach)
        y = abs(rng.uniform(-1, 1)) * 2.2 * math.exp(-age * 2.5) * reach
        u, v = camera.ground(x, s, y)
        r = camera.pixels(size, s)
        colour = ((30, 30, 32), (225, 225, 225), scene.motion.other.paint)[rng.randrange(3)]
        draw.polygon(
            [(u - r, v), (u, v - r * 1.3), (u + r, v + r * 0.3), (u - r * 0.2, v + r)], fill=light.lit(colour, s)
        )


def draw_smoke(draw: ImageDraw, scene: Scene, camera: Camera, light: Light, pose: Pose, t_s: float) -> None:
    """The plume over the struck vehicle: pale after an injury crash, black after a fatal one."""
    rng = Random(scene.seed + 23)
    fatal = scene.truth["Crash_severity"] == "Fatal"
    puff = (40, 38, 38) if fatal else (205, 205, 208)
    start = SIZES[scene.motion.other.kind][2] * 0.75 if fatal else 0.9
    for k in range(11):
        x, y = pose.x + rng.uniform(-0.9, 0.9) + 0.1 * k, start + 0.32 * k * pose.after + 0.1 * math.sin(9 * t_s + k)
        (u, v), r = camera.ground(x, pose.s, y), camera.pixels((0.35 + 0.09 * k) * pose.after, pose.s)
        fill = scaled(mix(light.lit(puff, pose.s), puff, 0.35), rng.uniform(0.8, 1.1))
        draw.ellipse((u - r, v - r, u + r, v + r), fill=fill)


_FLAMES: tuple[tuple[Colour, float], ...] = (((226, 70, 18), 1.0), ((250, 150, 24), 0.68), ((255, 236, 120), 0.36))


def draw_fire(draw: ImageDraw, scene: Scene, camera: Camera, pose: Pose, t_s: float) -> None:
    """Flickering flames as wide as the struck vehicle."""
    flicker = moment_random(scene.seed, t_s, "fire")
    _, half_width, height = SIZES[scene.motion.other.kind]
    tall = 1.2 + 0.35 * height
    for colour, scale in _FLAMES:
        for k in range(5):
            x = pose.x + (k - 2) * 0.5 * max(0.8, half_width)
            tip = (tall + flicker.uniform(0.0, 1.3)) * scale * pose.after
            lean = flicker.uniform(-0.2, 0.2)
            outline = ((-0.5, 0.4), (-0.3, 0.5 + tip * 0.5), (lean, 0.5 + tip), (0.35, 0.5 + tip * 0.45), (0.5, 0.4))
            draw.polygon([camera.ground(x + a * scale, pose.s, y) for a, y in outline], fill=colour)


def draw_cracks(draw: ImageDraw, scene: Scene, camera: Camera, after: float) -> None:
    """The windscreen's cracks: none, some, or a web over the whole glass."""
    severity = scene.truth["Crash_severity"]
    if severity == "Property_damage_only" or after < 0.5:
        return
    rng = Random(scene.seed + 37)
    width, height = camera.width, camera.height
    big = 1.0 if severity == "Fatal" else 0.45
    u, v = width * rng.uniform(0.25, 0.75), height * rng.uniform(0.2, 0.6)
    rays = 16 if severity == "Fatal" else 9
    line = max(1, round(width / 240))
    angles = [k * math.tau / rays + rng.uniform(-0.15, 0.15) for k in range(rays)]
    for angle in angles:
        far = width * big * rng.uniform(0.35, 0.6)
        bend = angle + rng.uniform(-0.15, 0.15)
        points = [
            (u, v),
            (u + math.cos(angle) * far / 2, v + math.sin(angle) * far / 2),
            (u + math.cos(bend) * far, v + math.sin(bend) * far),
        ]
        draw.line(points, fill=(228, 234, 238), width=line)
    for ring in (0.12, 0.24):
        r = width * big * ring
        draw.line(
            [(u + math.cos(a) * r, v + math.sin(a) * r) for a in (*angles, angles[0])], fill=(214, 222, 228), width=line
        )
