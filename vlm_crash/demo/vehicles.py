"""Road users as solids: prisms from side profiles, with wheels, windows and lamps.

In: a pose, a kind, a paint. Out: polygons on an ImageDraw. Must hold: paint says nothing; the shape tells the kind, lamps tell front from rear.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from PIL.ImageDraw import ImageDraw

from vlm_crash.demo.camera import Camera, Light, Point, mix, scaled
from vlm_crash.demo.motion import Pose
from vlm_crash.demo.world import SIZES, Colour

GLASS, BLACK, WHITE, CARGO = (46, 58, 74), (24, 24, 26), (236, 236, 230), (214, 210, 200)
RED, LAMP = (235, 30, 25), (255, 250, 215)


@dataclass(frozen=True)
class Hit:
    """Where a vehicle was hit (rear, front, left, right) and how deep, in parts of its length."""

    part: str
    depth: float
    seed: int


Vertex = tuple[float, float, float]  # z along, y up, half width
# kind -> prisms (role of each face from vertex i to i+1, b body, g glass, r roof, k black, c cargo; role of the sides; profile)
Prism = tuple[str, str, tuple[Vertex, ...]]
_PRISMS: dict[str, tuple[Prism, ...]] = {
    "Sedan": (
        ("bbbkbb", "b", ((2.25, 0.3, 0.9), (2.2, 0.75, 0.9), (1.0, 0.92, 0.9), (-1.5, 0.95, 0.9), (-2.25, 0.9, 0.88), (-2.25, 0.3, 0.88))),
        ("grgk", "g", ((1.0, 0.9, 0.82), (0.1, 1.42, 0.62), (-0.95, 1.42, 0.62), (-1.75, 0.93, 0.82))),
    ),
    "SUV": (
        ("bbbkbk", "b", ((2.3, 0.45, 1.0), (2.25, 1.15, 1.0), (1.1, 1.25, 1.0), (-2.2, 1.25, 1.0), (-2.3, 1.1, 1.0), (-2.3, 0.45, 1.0))),
        ("grgk", "g", ((1.1, 1.22, 0.95), (0.55, 1.95, 0.85), (-2.1, 1.98, 0.85), (-2.25, 1.22, 0.95))),
        ("kkkk", "k", ((0.3, 1.97, 0.8), (0.3, 2.12, 0.8), (-1.9, 2.12, 0.8), (-1.9, 1.98, 0.8))),
    ),
    "Van": (
        ("bbkrbk", "b", ((2.6, 0.35, 1.05), (2.6, 1.15, 1.05), (1.9, 1.3, 1.05), (1.2, 2.65, 0.95), (-2.6, 2.7, 0.98), (-2.6, 0.35, 1.05))),
    ),
    "Truck": (
        ("kkkk", "k", ((3.7, 0.4, 1.1), (3.7, 0.9, 1.1), (-3.7, 0.9, 1.1), (-3.7, 0.4, 1.1))),
        ("cccc", "c", ((1.7, 0.9, 1.25), (1.7, 3.6, 1.25), (-3.75, 3.6, 1.25), (-3.75, 0.9, 1.25))),
        ("bgrbk", "b", ((3.75, 0.5, 1.15), (3.75, 1.5, 1.15), (3.5, 2.6, 1.1), (1.8, 2.6, 1.1), (1.8, 0.5, 1.15))),
    ),
    "Motorcycle": (
        ("bbbb", "b", ((1.0, 0.6, 0.2), (0.9, 1.1, 0.24), (-1.1, 1.1, 0.24), (-1.1, 0.6, 0.2))),
        ("kkkk", "k", ((0.45, 1.05, 0.36), (0.3, 1.75, 0.44), (-0.4, 1.75, 0.44), (-0.5, 1.05, 0.42))),
    ),
}  # fmt: skip
# kind -> wheels (z, radius); lamps' height, half spacing, half size; windscreen/rear window extras
_WHEELS = {
    "Sedan": ((1.4, 0.36), (-1.4, 0.36)), "SUV": ((1.45, 0.46), (-1.45, 0.46)), "Van": ((1.7, 0.4), (-1.7, 0.4)),
    "Truck": ((2.7, 0.55), (-1.6, 0.55), (-2.8, 0.55)), "Motorcycle": ((0.95, 0.48), (-0.95, 0.48)),
}  # fmt: skip
_LAMPS = {"Sedan": (0.7, 0.66), "SUV": (0.95, 0.74), "Van": (0.85, 0.8), "Truck": (0.85, 0.9), "Motorcycle": (1.1, 0.0)}
_SHADE = {"top": 1.12, "end": 0.92, "side": 0.72}


@lru_cache(maxsize=64)
def _ring(kind: str) -> tuple[tuple[float, float, float], ...]:
    """Outlines of the wheels: (index, z, y)."""
    corners = [(math.cos(a), math.sin(a)) for a in (0.4, 1.18, 1.96, 2.75, 3.53, 4.32, 5.1, 5.9)]
    return tuple((i, z + c * r, r + d * r) for i, (z, r) in enumerate(_WHEELS[kind]) for c, d in corners)


class _Body:
    """Local coordinates (x right, y up, z forward) of a pose onto the picture."""

    def __init__(self, camera: Camera, pose: Pose, half_width: float, squash: tuple[float, float]) -> None:
        self.camera, self.pose = camera, pose
        heading = pose.heading + 2 * camera.bend * pose.s
        self.c, self.d = math.cos(heading), math.sin(heading)
        self.rc, self.rd = math.cos(pose.roll), math.sin(pose.roll)
        self.lift = abs(self.rd) * half_width
        self.base, self.shift = camera.hill(pose.s), camera.bend * pose.s * pose.s
        self.squash = squash
        to_x, to_s = pose.x - camera.x, pose.s
        # where the camera stands, in the body's frame: decides which faces are seen
        self.eye_x, self.eye_z = -(to_x * self.c - to_s * self.d), -(to_x * self.d + to_s * self.c)

    def __call__(self, x: float, y: float, z: float) -> Point:
        if z > 1:
            z *= self.squash[0]
        elif z < -1:
            z *= self.squash[1]
        if self.rd:
            x, y = (
                x * self.rc - (y - self.lift) * self.rd,
                self.lift + x * self.rd + (y - self.lift) * self.rc + self.lift * 0.6,
            )
            y = max(y, 0.05)
        return self.camera.screen(
            self.pose.x + x * self.c + z * self.d, y, self.pose.s - x * self.d + z * self.c, self.base, self.shift
        )


def _faces_eye(points: list[Point], mirrored: bool) -> bool:
    area = 0.0
    u0, v0 = points[-1]
    for u, v in points:
        area += u0 * v - u * v0
        u0, v0 = u, v
    return (area < 0) != mirrored


def draw_shadow(draw: ImageDraw, camera: Camera, light: Light, pose: Pose, kind: str, wet: bool, paint: Colour) -> None:
    """A dark patch under the vehicle; on a wet road its mirror image instead."""
    length, half_width, height = SIZES[kind]
    body = _Body(camera, Pose(pose.x, pose.s, pose.heading), half_width, (1, 1))
    w, h = half_width + 0.12, length / 2 + 0.15
    dark = light.lit((38, 38, 42), pose.s)
    draw.polygon([body(-w, 0, -h), body(w, 0, -h), body(w, 0, h), body(-w, 0, h)], fill=dark)
    if wet and pose.s > 4:
        (u0, v), (u1, _) = body(-w, 0, -h), body(w, 0, -h)
        drop = camera.pixels(height * 0.7, pose.s) * camera.focal_v / abs(camera.focal)
        draw.polygon(
            [(u0, v), (u1, v), (u1 * 0.9 + u0 * 0.1, v + drop), (u0 * 0.9 + u1 * 0.1, v + drop)],
            fill=light.lit(mix(paint, (60, 64, 72), 0.5), pose.s, 0.8),
        )


def draw_vehicle(
    draw: ImageDraw, camera: Camera, light: Light, pose: Pose, kind: str, paint: Colour, hit: Hit | None = None
) -> None:
    """Draw a vehicle, upright or (by the pose's roll) on its side, dented where it was hit."""
    length, half_width, _ = SIZES[kind]
    squash = (1 - hit.depth * (hit.part == "front"), 1 - hit.depth * (hit.part == "rear")) if hit else (1.0, 1.0)
    body = _Body(camera, pose, half_width, squash)
    mirrored = camera.focal < 0
    colours = {"b": paint, "g": GLASS, "r": paint, "k": BLACK, "c": CARGO if paint != WHITE else (170, 176, 186)}
    flat = not pose.roll
    if flat:
        _draw_wheels(draw, body, light, pose, kind, half_width)
    prisms = _PRISMS[kind]
    if kind == "Truck" and body.eye_z < 1.7:  # the cab is farther than the cargo box
        prisms = (prisms[0], prisms[2], prisms[1])
    for roles, side_role, profile in prisms:
        left = [body(-w, y, z) for z, y, w in profile]
        right = [body(w, y, z) for z, y, w in profile]
        for points in (left[::-1], right):
            if _faces_eye(points, mirrored):
                draw.polygon(points, fill=light.lit(colours[side_role], pose.s, _SHADE["side"]))
        count = len(profile)
        for i, role in enumerate(roles[:count]):
            j = (i + 1) % count
            points = [left[i], left[j], right[j], right[i]]
            if _faces_eye(points, mirrored):
                rise = abs(profile[j][1] - profile[i][1]) > abs(profile[j][0] - profile[i][0])
                draw.polygon(points, fill=light.lit(colours[role], pose.s, _SHADE["end" if rise else "top"]))
    if kind == "Motorcycle":
        _draw_rider(draw, body, light, pose, paint)
    if kind == "Van":
        _draw_van_windows(draw, body, light, pose, mirrored)
    if flat:
        _draw_lamps(draw, body, light, pose, kind, length)
    if hit:
        _draw_dent(draw, body, light, pose, hit, kind)


def _draw_wheels(draw: ImageDraw, body: _Body, light: Light, pose: Pose, kind: str, half_width: float) -> None:
    black, rim = light.lit((18, 18, 20), pose.s), light.lit((110, 112, 118), pose.s)
    for z, radius in _WHEELS[kind]:  # seen from the ends
        for x in (-half_width + 0.02, half_width - 0.26) if kind != "Motorcycle" else (-0.1,):
            w = 0.24 if kind != "Motorcycle" else 0.2
            draw.polygon(
                [body(x, 0, z), body(x + w, 0, z), body(x + w, 2 * radius, z), body(x, 2 * radius, z)], fill=black
            )
    side = half_width + 0.01 if body.eye_x > 0 else -half_width - 0.01
    if abs(body.eye_x) < half_width or pose.s > 45:
        return
    if kind == "Motorcycle":
        side = 0.0
    for i, (z, radius) in enumerate(_WHEELS[kind]):
        draw.polygon([body(side, y, w) for n, w, y in _ring(kind) if n == i], fill=black)
        r = radius * 0.45
        draw.polygon(
            [
                body(side, radius - r, z),
                body(side, radius, z + r),
                body(side, radius + r, z),
                body(side, radius, z - r),
            ],
            fill=rim,
        )


def _draw_rider(draw: ImageDraw, body: _Body, light: Light, pose: Pose, paint: Colour) -> None:
    u, v = body(0, 1.98, 0)
    r = max(1.0, body.camera.pixels(0.25, pose.s))
    draw.ellipse((u - r, v - r, u + r, v + r), fill=light.lit(mix(paint, WHITE, 0.6), pose.s))


def _draw_van_windows(draw: ImageDraw, body: _Body, light: Light, pose: Pose, mirrored: bool) -> None:
    glass = light.lit(GLASS, pose.s)
    if body.eye_z > 2.6:
        draw.polygon(
            [body(-0.9, 1.35, 1.9), body(0.9, 1.35, 1.9), body(0.82, 2.35, 1.38), body(-0.82, 2.35, 1.38)], fill=glass
        )
    if body.eye_z < -2.6:
        for x in (-0.85, 0.08):
            draw.polygon(
                [body(x, 1.5, -2.6), body(x + 0.77, 1.5, -2.6), body(x + 0.77, 2.3, -2.6), body(x, 2.3, -2.6)],
                fill=glass,
            )
    if abs(body.eye_x) > 1.05:
        x = math.copysign(1.06, body.eye_x)
        draw.polygon([body(x, 1.4, 1.75), body(x, 1.4, 0.5), body(x, 2.25, 0.5), body(x, 2.25, 1.35)], fill=glass)


def _draw_lamps(draw: ImageDraw, body: _Body, light: Light, pose: Pose, kind: str, length: float) -> None:
    y, spread = _LAMPS[kind]
    front = body.eye_z > length / 2
    if not front and body.eye_z > -length / 2:
        return
    z = length / 2 if front else -length / 2
    colour = light.glow(LAMP if front else (RED if pose.braking or light.dark else (150, 24, 22)), pose.s)
    r = max(0.8, body.camera.pixels(0.15, pose.s) * (1.5 if pose.braking and not front else 1.0))
    halo = r * (1.9 if light.dark else 1.0)
    for x in (-spread, spread) if spread else (0.0,):
        u, v = body(x, y, z)
        if halo > r:
            draw.ellipse(
                (u - halo, v - halo, u + halo, v + halo), fill=mix(light.lit((60, 60, 60), pose.s), colour, 0.35)
            )
        draw.ellipse((u - r, v - r, u + r, v + r), fill=colour)
        if pose.reversing and not front:
            draw.rectangle((u - r, v + r, u + r, v + 2.4 * r), fill=light.glow((255, 255, 250), pose.s))


def _draw_dent(draw: ImageDraw, body: _Body, light: Light, pose: Pose, hit: Hit, kind: str) -> None:
    """A dark ragged hollow with bare bright metal along its edge, where the body was hit."""
    length, half_width, height = SIZES[kind]
    size, rng = 0.4 + 2.2 * hit.depth, Random(hit.seed)
    ends = hit.part in ("front", "rear")
    corners = []
    for i in range(13):
        far, angle = rng.uniform(0.6, 1.1), (i + rng.uniform(-0.3, 0.3)) * math.tau / 13
        corners.append((math.cos(angle) * far * (1.2 if ends else 1.6), math.sin(angle) * far * 0.75))
    for scale, dx, colour in ((1.15, 0.06, (205, 205, 205)), (1.0, 0.0, (14, 12, 12))):
        points = []
        for a, b in corners:
            along, y = a * size * scale + dx, max(0.1, min(height * 0.42, 1.0) + b * size * scale)
            if ends:
                points.append(
                    body(
                        max(-half_width, min(half_width, along)),
                        y,
                        math.copysign(length / 2, hit.part == "front" or -1),
                    )
                )
            else:
                points.append(body(math.copysign(half_width, hit.part == "right" or -1), y, along))
        draw.polygon(points, fill=light.lit(colour, pose.s))


def draw_walker(draw: ImageDraw, camera: Camera, light: Light, pose: Pose, paint: Colour, t_s: float) -> None:
    """A pedestrian, flat towards the camera, with swinging legs; `roll` lays the figure down."""
    swing = 0.28 * math.sin(7.0 * t_s) * (pose.after == 0)
    c, d = math.cos(pose.roll), math.sin(pose.roll)
    base, shift = camera.hill(pose.s), camera.bend * pose.s * pose.s

    def at(x: float, y: float) -> Point:
        return camera.screen(
            pose.x + (x * c + y * d) * 1.1, max(0.05, (y * c - x * d) * 1.1 + abs(d) * 0.25), pose.s, base, shift
        )

    cloth, trousers, skin = (
        light.lit(paint, pose.s),
        light.lit(scaled(mix(paint, (40, 44, 60), 0.75), 1.0), pose.s),
        light.lit((222, 178, 148), pose.s),
    )
    for way in (-1, 1):
        draw.polygon(
            [at(0.14 * way, 0.85), at(-0.04 * way, 0.85), at(swing * way - 0.1, 0.0), at(swing * way + 0.1, 0.0)],
            fill=trousers,
        )
        draw.polygon(
            [
                at(0.22 * way, 1.45),
                at(0.3 * way, 1.4),
                at(0.3 * way - swing * way, 0.85),
                at(0.2 * way - swing * way, 0.88),
            ],
            fill=cloth,
        )
    draw.polygon([at(-0.24, 1.48), at(0.24, 1.48), at(0.2, 0.8), at(-0.2, 0.8)], fill=cloth)
    u, v = at(0, 1.68)
    r = camera.pixels(0.17, pose.s)
    draw.ellipse((u - r, v - r, u + r, v + r), fill=skin)
