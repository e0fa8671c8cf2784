"""What stands beside the road and tells its type: buildings, trees, rails, gantries, parking bays, signals, lamps.

In: a view. Out: (distance, draw call) pairs for the painter.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial

from vlm_crash.demo.ground import CROSS_HALF, INTERSECTIONS, ROWS, road_edge, slots
from vlm_crash.demo.light import mix, scaled
from vlm_crash.demo.motion import Pose
from vlm_crash.demo.scenarios import STOPPED
from vlm_crash.demo.vehicles import draw_vehicle
from vlm_crash.demo.view import View
from vlm_crash.demo.world import PAINTS

Item = tuple[float, Callable[[], None]]


def roadside(view: View) -> Iterator[Item]:
    """(distance, draw call) of everything beside the road."""
    road, edge = view.scene.truth["Road_type"], road_edge(view.scene)
    randoms = view.scene.look.randoms
    if road in ("Road_segement", *INTERSECTIONS):
        yield from _buildings(view, edge + (5.0 if road == "Road_segement" else 11.0))
    if road == "Signalized_intersection":
        s = view.scene.look.crossing_s - view.travelled + CROSS_HALF + 1.0
        if s > 2.5:
            for side in (-1, 1):
                yield s, partial(_signal, view, side * (edge + 1.0), s, -side)
    elif road == "Rural_road":
        for _, s, side, r in slots(view, 7.5, 70.0):
            yield s, partial(_tree, view, side * (edge + 2.5 + 5 * r), s, r)
            yield s + 2, partial(view.post, side * (edge + 1.2), s + 2, 1.1, 0.1, view.light.lit((120, 88, 56), s))
    elif road == "Highway/Freeway":
        yield from _rails(view, edge + 1.1)
        gantry = (randoms[5] * 30 + 18 - view.travelled) % 48
        yield gantry, partial(_gantry, view, edge + 1.6, gantry + 1.5, randoms[6])
    elif road == "Parking_lot":
        for k, s, side, r in slots(view, 3.0, 36.0):
            yield s, partial(_bay, view, side, edge, s, (r, randoms[(k * 3 + side) % 64]))
    if view.light.name == "Dark_lighted":
        for _, s, side, _ in slots(view, 16.0, 64.0):
            if s > 2.0:
                yield s - 0.3, partial(_lamp, view, side, edge + 0.9, s)


def _buildings(view: View, x: float) -> Iterator[Item]:
    for k, s, side, r in slots(view, 11.0, 90.0):
        corner = abs(s + view.travelled - view.scene.look.crossing_s) < 11.0
        if view.scene.truth["Road_type"] == "Road_segement" or not corner:
            yield s + 5.0, partial(_building, view, side, x, s, r, k)


def _building(view: View, side: int, x: float, s: float, r: float, k: int) -> None:
    light = view.light
    height, deep = 6.0 + 9.0 * ((r * 7) % 1), 9.0
    wall = mix(PAINTS[(k * 5 + side) % len(PAINTS)], (170, 150, 130), 0.7)
    near, far = x * side, (x + 12) * side
    view.patch(((near, s), (near, s, height), (far, s, height), (far, s)), light.lit(wall, s, 0.8))
    view.patch(((near, s), (near, s, height), (near, s + deep, height), (near, s + deep)), light.lit(wall, s))
    every = 3 if light.name == "Dark_lighted" else 9  # how many windows there are for one with light
    for row in range(int(height // 3)):
        y = 1.2 + 3 * row
        for column in range(3):
            z = s + 1.0 + 2.8 * column
            lit = light.dark and (k + row * 3 + column) % every == 0
            pane = light.glow((250, 214, 130), s) if lit else light.lit((62, 74, 92), s)
            view.patch(((near, z, y), (near, z, y + 1.4), (near, z + 1.5, y + 1.4), (near, z + 1.5, y)), pane)


def _tree(view: View, x: float, s: float, r: float) -> None:
    light = view.light
    view.post(x, s, 2.0, 0.22, light.lit((88, 62, 40), s))
    (u, v), size = view.camera.ground(x, s, 3.2 + r), view.camera.pixels(1.5 + r, s)
    leaf = light.lit(mix((46, 98, 40), (110, 116, 44), (r * 3) % 1), s)
    view.draw.ellipse((u - size, v - size * 1.1, u + size, v + size), fill=leaf)
    crown = (u - size * 0.7, v - size * 1.5, u + size * 0.6, v + size * 0.2)
    view.draw.ellipse(crown, fill=light.lit((70, 124, 54), s))


def _rails(view: View, x: float) -> Iterator[Item]:
    def piece(x: float, near: float, far: float) -> None:
        band = ((x, near, 0.5), (x, far, 0.5), (x, far, 1.0), (x, near, 1.0))
        view.patch(band, view.light.lit((196, 200, 206), near))
        view.post(x, near, 0.5, 0.1, view.light.lit((110, 112, 116), near))

    for far, near in zip(ROWS[2:], ROWS[1:], strict=False):
        if near < 70:
            for side in (-1, 1):
                yield near + 0.1, partial(piece, side * x, near, far)


def _gantry(view: View, x: float, s: float, r: float) -> None:
    steel = view.light.lit((130, 134, 140), s)
    for side in (-1, 1):
        view.post(side * x, s, 6.6, 0.22, steel)
    view.patch(((-x, s, 6.2), (x, s, 6.2), (x, s, 6.7), (-x, s, 6.7)), steel)
    panel = view.light.lit(mix((30, 110, 70), (40, 80, 160), round(r)), s)
    for a, b in ((-0.8 * x, -0.1 * x), (0.1 * x, 0.8 * x)):
        view.patch(((a, s, 5.2), (b, s, 5.2), (b, s, 7.4), (a, s, 7.4)), panel)


def _bay(view: View, side: int, edge: float, s: float, chance: tuple[float, float]) -> None:
    """A parking bay's line, and a car in some."""
    view.strip((side * (edge + 0.3), side * (edge + 5.3)), (s, s + 0.25), view.light.lit((245, 245, 245), s))
    r, filled = chance
    if filled < 0.3 and s > 3.0:
        pose = Pose(side * (edge + 3.2), s + 1.6, side * math.pi / 2)
        draw_vehicle(view, pose, ("Sedan", "SUV")[int(r * 20) % 2], PAINTS[int(filled * 100 + r * 50) % len(PAINTS)])


def _lamp(view: View, side: int, x: float, s: float) -> None:
    camera, pole = view.camera, view.light.lit((120, 120, 122), s)
    view.post(side * x, s, 6.0, 0.1, pole)
    u, v = camera.ground(side * (x - 1.4), s, 6.0)
    r = max(1.2, camera.pixels(0.35, s))
    view.draw.line([camera.ground(side * x, s, 6.0), (u, v)], fill=pole, width=max(1, int(camera.pixels(0.14, s))))
    for size, share in ((2.6, 0.3), (1.7, 0.6), (1.0, 1.0)):
        view.disc(u, v, r * size, mix(view.light.low, (255, 214, 130), share))


def _signal(view: View, x: float, s: float, way: int) -> None:
    """A pole with one head and an arm with another over the road; red where ego stands."""
    camera, light = view.camera, view.light
    steel = light.lit((70, 74, 78), s)
    view.post(x, s, 6.2, 0.2, steel)
    reach = x + way * min(abs(x), 4.0)
    view.patch(((x, s, 5.9), (reach, s, 5.9), (reach, s, 6.3), (x, s, 6.3)), steel)
    shining = 0 if view.scene.scenario.ego == STOPPED else (2 if view.scene.look.randoms[9] < 0.7 else 1)
    for px, y in ((x, 3.0), (reach, 4.2)):
        (u, v), w = camera.ground(px, s, y + 2.6), camera.pixels(0.55, s)
        step = w * 1.5 * camera.focal_v / abs(camera.focal)
        view.draw.rectangle((u - w, v, u + w, v + step * 3.2), fill=light.lit((20, 22, 22), s))
        for i, colour in enumerate(((255, 40, 30), (255, 190, 30), (50, 235, 110))):
            fill = light.glow(colour, s) if i == shining else light.lit(scaled(colour, 0.3), s)
            view.disc(u, v + step * (i + 0.6), w * 0.62, fill)
