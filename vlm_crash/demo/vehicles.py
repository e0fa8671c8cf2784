"""Road users as solids: vehicles from their shapes, pedestrians as flat figures.

In: a view, a pose, a kind, a paint. Out: polygons on the picture. Must hold: paint says nothing; the shape tells the
kind, lamps tell front from rear.
"""

import math
from dataclasses import dataclass
from random import Random

from vlm_crash.demo.camera import Point
from vlm_crash.demo.light import mix
from vlm_crash.demo.motion import Pose
from vlm_crash.demo.shapes import LAMPS, PRISMS, WHEELS
from vlm_crash.demo.view import View
from vlm_crash.demo.world import SIZES, Colour

GLASS, BLACK, WHITE, CARGO = (46, 58, 74), (24, 24, 26), (236, 236, 230), (214, 210, 200)
TAIL, BRAKE, HEADLAMP = (150, 24, 22), (235, 30, 25), (255, 250, 215)
_SHADE = {"top": 1.12, "end": 0.92, "side": 0.72}
_WHEEL = tuple((math.cos(a), math.sin(a)) for a in (0.4, 1.18, 1.96, 2.75, 3.53, 4.32, 5.1, 5.9))


@dataclass(frozen=True)
class Hit:
    """Where a vehicle was hit (rear, front, left, right) and how deep, in parts of its length."""

    part: str
    depth: float
    seed: int


class _Body:
    """Local coordinates (x right, y up, z forward) of a pose onto the picture."""

    def __init__(self, view: View, pose: Pose, kind: str, hit: Hit | None = None) -> None:
        self.view, self.pose, self.kind = view, pose, kind
        self.length, self.half_width, self.height = SIZES[kind]
        camera = self.camera = view.camera
        heading = pose.heading + 2 * camera.bend * pose.s
        self.c, self.d = math.cos(heading), math.sin(heading)
        self.rc, self.rd = math.cos(pose.roll), math.sin(pose.roll)
        self.lift = abs(self.rd) * self.half_width
        self.base, self.shift = camera.hill(pose.s), camera.bend * pose.s * pose.s
        self.front = 1 - hit.depth if hit and hit.part == "front" else 1.0
        self.rear = 1 - hit.depth if hit and hit.part == "rear" else 1.0
        # where the camera stands, in the body's frame: decides which faces are seen
        to_x, to_s = pose.x - camera.x, pose.s
        self.eye_x, self.eye_z = -(to_x * self.c - to_s * self.d), -(to_x * self.d + to_s * self.c)

    def __call__(self, x: float, y: float, z: float) -> Point:
        if z > 1:
            z *= self.front
        elif z < -1:
            z *= self.rear
        if self.rd:
            low = y - self.lift
            x, y = x * self.rc - low * self.rd, max(0.05, 1.6 * self.lift + x * self.rd + low * self.rc)
        pose = self.pose
        across, ahead = pose.x + x * self.c + z * self.d, pose.s - x * self.d + z * self.c
        return self.camera.screen(across, y, ahead, self.base, self.shift)

    def fill(self, points: list[tuple[float, float, float]], colour: Colour) -> None:
        """A polygon given in the body's coordinates."""
        self.view.draw.polygon([self(*point) for point in points], fill=colour)

    def seen(self, outline: list[Point]) -> bool:
        """Whether a face with this outline looks towards the camera."""
        area = 0.0
        u0, v0 = outline[-1]
        for u, v in outline:
            area += u0 * v - u * v0
            u0, v0 = u, v
        return (area < 0) != (self.camera.focal < 0)


def draw_shadow(view: View, pose: Pose, kind: str, paint: Colour) -> None:
    """A dark patch under the road user, and on a wet road its mirror image."""
    body, light = _Body(view, Pose(pose.x, pose.s, pose.heading), kind), view.light
    w, h = body.half_width + 0.12, body.length / 2 + 0.15
    body.fill([(-w, 0, -h), (w, 0, -h), (w, 0, h), (-w, 0, h)], light.lit((38, 38, 42), pose.s))
    if view.scene.truth["Road_surface_condition"] == "Wet" and pose.s > 4:
        (u0, v), (u1, _) = body(-w, 0, -h), body(w, 0, -h)
        drop = body.camera.pixels(body.height * 0.7, pose.s) * body.camera.focal_v / abs(body.camera.focal)
        image = [(u0, v), (u1, v), (u1 * 0.9 + u0 * 0.1, v + drop), (u0 * 0.9 + u1 * 0.1, v + drop)]
        view.draw.polygon(image, fill=light.lit(mix(paint, (60, 64, 72), 0.5), pose.s, 0.8))


def draw_vehicle(view: View, pose: Pose, kind: str, paint: Colour, hit: Hit | None = None) -> None:
    """Draw a vehicle, upright or (by the pose's roll) on its side, dented where it was hit."""
    body, light = _Body(view, pose, kind, hit), view.light
    cargo = (170, 176, 186) if paint == WHITE else CARGO
    colours = {"b": paint, "g": GLASS, "r": paint, "k": BLACK, "c": cargo}
    upright = not pose.roll
    if upright:
        _draw_wheels(body)
    prisms = PRISMS[kind]
    if kind == "Truck" and body.eye_z < 1.7:  # the cab is farther than the cargo box
        prisms = (prisms[0], prisms[2], prisms[1])
    for roles, side_role, profile in prisms:
        left = [body(-w, y, z) for z, y, w in profile]
        right = [body(w, y, z) for z, y, w in profile]
        for outline in (left[::-1], right):
            if body.seen(outline):
                view.draw.polygon(outline, fill=light.lit(colours[side_role], pose.s, _SHADE["side"]))
        for i in range(len(profile)):
            j = (i + 1) % len(profile)
            outline = [left[i], left[j], right[j], right[i]]
            if i < len(roles) and body.seen(outline):
                steep = abs(profile[j][1] - profile[i][1]) > abs(profile[j][0] - profile[i][0])
                shade = _SHADE["end" if steep else "top"]
                view.draw.polygon(outline, fill=light.lit(colours[roles[i]], pose.s, shade))
    if kind == "Motorcycle":
        view.disc(
            *body(0, 1.98, 0), max(1.0, body.camera.pixels(0.25, pose.s)), light.lit(mix(paint, WHITE, 0.6), pose.s)
        )
    if kind == "Van":
        _draw_van_windows(body)
    if upright:
        _draw_lamps(body)
    if hit:
        _draw_dent(body, hit)


def _draw_wheels(body: _Body) -> None:
    s, half = body.pose.s, body.half_width
    black, rim = body.view.light.lit((18, 18, 20), s), body.view.light.lit((110, 112, 118), s)
    motorcycle = body.kind == "Motorcycle"
    treads = ((-0.1, 0.1),) if motorcycle else ((-half + 0.02, -half + 0.26), (half - 0.26, half - 0.02))
    for z, radius in WHEELS[body.kind]:  # seen from the ends
        for a, b in treads:
            body.fill([(a, 0, z), (b, 0, z), (b, 2 * radius, z), (a, 2 * radius, z)], black)
    if abs(body.eye_x) < half or s > 45:
        return
    x = 0.0 if motorcycle else math.copysign(half + 0.01, body.eye_x)
    for z, radius in WHEELS[body.kind]:  # seen from the side
        body.fill([(x, radius + b * radius, z + a * radius) for a, b in _WHEEL], black)
        r = radius * 0.45
        body.fill([(x, radius - r, z), (x, radius, z + r), (x, radius + r, z), (x, radius, z - r)], rim)


def _draw_van_windows(body: _Body) -> None:
    glass = body.view.light.lit(GLASS, body.pose.s)
    if body.eye_z > 2.6:
        body.fill([(-0.9, 1.35, 1.9), (0.9, 1.35, 1.9), (0.82, 2.35, 1.38), (-0.82, 2.35, 1.38)], glass)
    if body.eye_z < -2.6:
        for x in (-0.85, 0.08):
            body.fill([(x, 1.5, -2.6), (x + 0.77, 1.5, -2.6), (x + 0.77, 2.3, -2.6), (x, 2.3, -2.6)], glass)
    if abs(body.eye_x) > 1.05:
        x = math.copysign(1.06, body.eye_x)
        body.fill([(x, 1.4, 1.75), (x, 1.4, 0.5), (x, 2.25, 0.5), (x, 2.25, 1.35)], glass)


def _draw_lamps(body: _Body) -> None:
    """White in front, red behind: brighter when braking, with white ones below when backing up."""
    view, pose, light = body.view, body.pose, body.view.light
    y, spread = LAMPS[body.kind]
    front = body.eye_z > body.length / 2
    if not front and body.eye_z > -body.length / 2:
        return
    colour = light.glow(HEADLAMP if front else (BRAKE if pose.braking or light.dark else TAIL), pose.s)
    r = max(0.8, body.camera.pixels(0.15, pose.s) * (1.5 if pose.braking and not front else 1.0))
    for x in (-spread, spread) if spread else (0.0,):
        u, v = body(x, y, body.length / 2 if front else -body.length / 2)
        if light.dark:
            view.disc(u, v, 1.9 * r, mix(light.lit((60, 60, 60), pose.s), colour, 0.35))
        view.disc(u, v, r, colour)
        if pose.reversing and not front:
            view.draw.rectangle((u - r, v + r, u + r, v + 2.4 * r), fill=light.glow((255, 255, 250), pose.s))


def _draw_dent(body: _Body, hit: Hit) -> None:
    """A dark ragged hollow with bare bright metal along its edge, where the body was hit."""
    size, rng = 0.4 + 2.2 * hit.depth, Random(hit.seed)
    ends, half = hit.part in ("front", "rear"), body.half_width
    corners = []
    for i in range(13):
        far, angle = rng.uniform(0.6, 1.1), (i + rng.uniform(-0.3, 0.3)) * math.tau / 13
        corners.append((math.cos(angle) * far * (1.2 if ends else 1.6), math.sin(angle) * far * 0.75))
    for scale, aside, colour in ((1.15, 0.06, (205, 205, 205)), (1.0, 0.0, (14, 12, 12))):
        points = []
        for a, b in corners:
            along, y = a * size * scale + aside, max(0.1, min(body.height * 0.42, 1.0) + b * size * scale)
            if ends:
                z = body.length / 2 if hit.part == "front" else -body.length / 2
                points.append((max(-half, min(half, along)), y, z))
            else:
                points.append((half if hit.part == "right" else -half, y, along))
        body.fill(points, body.view.light.lit(colour, body.pose.s))


def draw_walker(view: View, pose: Pose, paint: Colour) -> None:
    """A pedestrian, flat towards the camera, with swinging legs; `roll` lays the figure down."""
    camera, light, s = view.camera, view.light, pose.s
    swing = 0.28 * math.sin(7.0 * view.t_s) * (pose.after == 0)
    c, d = math.cos(pose.roll), math.sin(pose.roll)
    base, shift = camera.hill(s), camera.bend * s * s

    def at(x: float, y: float) -> Point:
        up = max(0.05, (y * c - x * d) * 1.1 + abs(d) * 0.25)
        return camera.screen(pose.x + (x * c + y * d) * 1.1, up, s, base, shift)

    cloth, trousers = light.lit(paint, s), light.lit(mix(paint, (40, 44, 60), 0.75), s)
    for way in (-1, 1):
        leg = ((0.14 * way, 0.85), (-0.04 * way, 0.85), (swing * way - 0.1, 0.0), (swing * way + 0.1, 0.0))
        arm = ((0.22, 1.45), (0.3, 1.4), (0.3 - swing, 0.85), (0.2 - swing, 0.88))
        view.draw.polygon([at(x, y) for x, y in leg], fill=trousers)
        view.draw.polygon([at(x * way, y) for x, y in arm], fill=cloth)
    view.draw.polygon([at(-0.24, 1.48), at(0.24, 1.48), at(0.2, 0.8), at(-0.2, 0.8)], fill=cloth)
    view.disc(*at(0, 1.68), camera.pixels(0.17, s), light.lit((222, 178, 148), s))
