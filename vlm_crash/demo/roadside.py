"""What stands beside the road and tells its type: buildings, trees, rails, gantries, parking bays, signals, lamps.

In: a scene, a camera, a light, the metres travelled. Out: (distance, draw call) pairs for the painter.
"""

from collections.abc import Callable, Iterator
from functools import partial

from PIL.ImageDraw import ImageDraw

from vlm_crash.demo.camera import Camera, Light, mix, scaled
from vlm_crash.demo.ground import CROSS_HALF, INTERSECTIONS, ROWS, road_edge, slots
from vlm_crash.demo.motion import Pose
from vlm_crash.demo.vehicles import draw_vehicle
from vlm_crash.demo.world import PAINTS, Colour, Scene

Item = tuple[float, Callable[[], None]]


def _post(draw: ImageDraw, camera: Camera, fill: Colour, x: float, s: float, height: float, half: float) -> None:
    (u, v), (_, top) = camera.ground(x, s), camera.ground(x, s, height)
    w = max(0.6, camera.pixels(half, s))
    draw.rectangle((u - w, min(top, v), u + w, max(top, v)), fill=fill)


def roadside(draw: ImageDraw, scene: Scene, camera: Camera, light: Light, travelled: float) -> Iterator[Item]:
    """(distance, draw call) of everything beside the road."""
    road, edge = scene.truth["Road_type"], road_edge(scene)
    here = partial(slots, scene, travelled)
    if road in ("Road_segement", *INTERSECTIONS):
        away = 5.0 if road == "Road_segement" else 11.0
        for k, s, side, r in here(11.0, 90.0):
            if road in INTERSECTIONS and abs(s + travelled - scene.look.crossing_s) < 11.0:
                continue
            yield s + 5.0, partial(_building, draw, camera, light, side, edge + away, s, r, k)
    if road == "Signalized_intersection":
        s = scene.look.crossing_s - travelled + CROSS_HALF + 1.0
        if s > 2.5:
            for side in (-1, 1):
                yield s, partial(_signal, draw, scene, camera, light, side * (edge + 1.0), s, -side)
    elif road == "Rural_road":
        for k, s, side, r in here(7.5, 70.0):
            yield s, partial(_tree, draw, camera, light, side * (edge + 2.5 + 5 * r), s, r)
            yield s + 2, partial(_post, draw, camera, light.lit((120, 88, 56), s), side * (edge + 1.2), s + 2, 1.1, 0.1)
    elif road == "Highway/Freeway":
        yield from _rails(draw, camera, light, edge + 1.1, travelled)
        gantry = (scene.look.randoms[5] * 30 + 18 - travelled) % 48
        yield gantry, partial(_gantry, draw, camera, light, edge + 1.6, gantry + 1.5, scene.look.randoms[6])
    elif road == "Parking_lot":
        for k, s, side, r in here(3.0, 36.0):
            yield s, partial(_bay, draw, camera, light, side, edge, s, r, scene.look.randoms[(k * 3 + side) % 64])
    if light.name == "Dark_lighted":
        for _, s, side, r in here(16.0, 64.0):
            if s > 2.0:
                yield s - 0.3, partial(_lamp, draw, camera, light, side, edge + 0.9, s)


def _building(draw: ImageDraw, camera: Camera, light: Light, side: int, x: float, s: float, r: float, k: int) -> None:
    height, deep = 6.0 + 9.0 * ((r * 7) % 1), 9.0
    wall = PAINTS[(k * 5 + side) % len(PAINTS)]
    wall = mix(wall, (170, 150, 130), 0.7)
    near, far = x * side, (x + 12) * side
    a, b, c, d = (
        camera.ground(px, ps, y)
        for px, ps, y in ((near, s, 0), (near, s, height), (near, s + deep, height), (near, s + deep, 0))
    )
    e, f = camera.ground(far, s, height), camera.ground(far, s)
    draw.polygon([a, b, e, f], fill=light.lit(wall, s, 0.8))
    draw.polygon([a, b, c, d], fill=light.lit(wall, s, 1.0))
    for row in range(int(height // 3)):
        y = 1.2 + 3 * row
        for col in range(3):
            z = s + 1.0 + 2.8 * col
            lit = light.dark and (k + row * 3 + col) % (3 if light.name == "Dark_lighted" else 9) == 0
            pane = light.glow((250, 214, 130), s) if lit else light.lit((62, 74, 92), s)
            draw.polygon(
                [
                    camera.ground(near, z, y),
                    camera.ground(near, z, y + 1.4),
                    camera.ground(near, z + 1.5, y + 1.4),
                    camera.ground(near, z + 1.5, y),
                ],
                fill=pane,
            )


def _tree(draw: ImageDraw, camera: Camera, light: Light, x: float, s: float, r: float) -> None:
    _post(draw, camera, light.lit((88, 62, 40), s), x, s, 2.0, 0.22)
    (u, v), size = camera.ground(x, s, 3.2 + r), camera.pixels(1.5 + r, s)
    leaf = light.lit(mix((46, 98, 40), (110, 116, 44), (r * 3) % 1), s)
    draw.ellipse((u - size, v - size * 1.1, u + size, v + size), fill=leaf)
    draw.ellipse((u - size * 0.7, v - size * 1.5, u + size * 0.6, v + size * 0.2), fill=light.lit((70, 124, 54), s))


def _rails(draw: ImageDraw, camera: Camera, light: Light, x: float, travelled: float) -> Iterator[Item]:
    def piece(side: int, near: float, far: float) -> None:
        quad = [
            camera.ground(side * x, near, 0.5),
            camera.ground(side * x, far, 0.5),
            camera.ground(side * x, far, 1.0),
            camera.ground(side * x, near, 1.0),
        ]
        draw.polygon(quad, fill=light.lit((196, 200, 206), near))
        _post(draw, camera, light.lit((110, 112, 116), near), side * x, near, 0.5, 0.1)

    for far, near in zip(ROWS[2:], ROWS[1:], strict=False):
        if near < 70:
            for side in (-1, 1):
                yield near + 0.1, partial(piece, side, near, far)


def _gantry(draw: ImageDraw, camera: Camera, light: Light, x: float, s: float, r: float) -> None:
    steel = light.lit((130, 134, 140), s)
    for side in (-1, 1):
        _post(draw, camera, steel, side * x, s, 6.6, 0.22)
    draw.polygon(
        [camera.ground(-x, s, 6.2), camera.ground(x, s, 6.2), camera.ground(x, s, 6.7), camera.ground(-x, s, 6.7)],
        fill=steel,
    )
    panel = light.lit(mix((30, 110, 70), (40, 80, 160), round(r)), s)
    for a, b in ((-0.8, -0.1), (0.1, 0.8)):
        draw.polygon(
            [
                camera.ground(a * x, s, 5.2),
                camera.ground(b * x, s, 5.2),
                camera.ground(b * x, s, 7.4),
                camera.ground(a * x, s, 7.4),
            ],
            fill=panel,
        )


def _bay(
    draw: ImageDraw, camera: Camera, light: Light, side: int, edge: float, s: float, r: float, filled: float
) -> None:
    near, far = side * (edge + 0.3), side * (edge + 5.3)
    points = [
        camera.ground(near, s),
        camera.ground(far, s),
        camera.ground(far, s + 0.25),
        camera.ground(near, s + 0.25),
    ]
    draw.polygon(points, fill=light.lit((245, 245, 245), s))
    if filled < 0.3 and s > 3.0:
        pose = Pose(side * (edge + 3.2), s + 1.6, side * 1.5708)
        draw_vehicle(
            draw,
            camera,
            light,
            pose,
            ("Sedan", "SUV")[int(r * 20) % 2],
            PAINTS[int(filled * 100 + r * 50) % len(PAINTS)],
        )


def _lamp(draw: ImageDraw, camera: Camera, light: Light, side: int, x: float, s: float) -> None:
    pole = light.lit((120, 120, 122), s)
    _post(draw, camera, pole, side * x, s, 6.0, 0.1)
    u, v = camera.ground(side * (x - 1.4), s, 6.0)
    r = max(1.2, camera.pixels(0.35, s))
    draw.line([camera.ground(side * x, s, 6.0), (u, v)], fill=pole, width=max(1, int(camera.pixels(0.14, s))))
    for size, share in ((2.6, 0.3), (1.7, 0.6), (1.0, 1.0)):
        draw.ellipse(
            (u - r * size, v - r * size, u + r * size, v + r * size), fill=mix(light.low, (255, 214, 130), share)
        )


def _signal(draw: ImageDraw, scene: Scene, camera: Camera, light: Light, x: float, s: float, way: int) -> None:
    steel = light.lit((70, 74, 78), s)
    _post(draw, camera, steel, x, s, 6.2, 0.2)
    reach = x + way * min(abs(x), 4.0)
    draw.polygon(
        [
            camera.ground(x, s, 5.9),
            camera.ground(reach, s, 5.9),
            camera.ground(reach, s, 6.3),
            camera.ground(x, s, 6.3),
        ],
        fill=steel,
    )
    shining = 0 if scene.truth["Ego_pre_avoid_movement"] == "Stopped" else (2 if scene.look.randoms[9] < 0.7 else 1)
    for px, y in ((x, 3.0), (reach, 4.2)):
        (u, v), w = camera.ground(px, s, y + 2.6), camera.pixels(0.55, s)
        step = w * 1.5 * camera.focal_v / abs(camera.focal)
        draw.rectangle((u - w, v, u + w, v + step * 3.2), fill=light.lit((20, 22, 22), s))
        for i, colour in enumerate(((255, 40, 30), (255, 190, 30), (50, 235, 110))):
            r = w * 0.62
            cv = v + step * (i + 0.6)
            fill = light.glow(colour, s) if i == shining else light.lit(scaled(colour, 0.3), s)
            draw.ellipse((u - r, cv - r, u + r, cv + r), fill=fill)
