"""Sky, ground, road and what stands beside it.

In: a scene, a camera, a light, the metres travelled. Out: polygons; `draw_ground` at once, `roadside` as (distance, draw call) pairs for the painter.
Must hold: things stand still in the world, so that their motion in the picture is ego's own.
"""

from collections.abc import Callable, Iterator
from functools import partial
from random import Random

from PIL.ImageDraw import ImageDraw

from vlm_crash.demo.camera import Camera, Light, mix, scaled
from vlm_crash.demo.motion import Pose
from vlm_crash.demo.scene import PAINTS, Colour, Scene, lane_centre
from vlm_crash.demo.vehicles import draw_vehicle

Item = tuple[float, Callable[[], None]]
ROWS = (0.6, 2.0, 3.2, 4.6, 6.5, 9.0, 12.5, 17.0, 23.0, 31.0, 45.0, 70.0, 130.0)
CROSS_HALF = 4.5  # half the cross road's width
INTERSECTIONS = ("Signalized_intersection", "nonSignalized_intersection")


def road_edge(scene: Scene) -> float:
    """Half the road's width in metres."""
    return int(scene.truth["Lanes"]) * scene.look.lane_width / 2


def draw_sky(draw: ImageDraw, scene: Scene, camera: Camera, light: Light) -> None:
    width, height = camera.width, camera.height
    horizon = min(camera.skyline(), height) + 0.1 * height
    weather = scene.truth["Weather"]
    for i in range(10):
        draw.rectangle(
            (0, horizon * i / 10, width, horizon * (i + 1) / 10 + 1), fill=mix(light.top, light.low, (i + 0.5) / 10)
        )
    rng = Random(scene.seed)
    if weather == "Clear":
        if light.dark:
            star = scaled((235, 235, 215), 1.0)
            for _ in range(36):
                u, v, r = rng.uniform(0, width), rng.uniform(0, horizon), width * rng.uniform(0.0025, 0.005)
                draw.ellipse((u - r, v - r, u + r, v + r), fill=star)
        u, r = rng.uniform(0.1, 0.9) * width, width * (0.045 if light.name != "Dawn_dusk" else 0.06)
        v = (rng.uniform(0.1, 0.3) if light.name != "Dawn_dusk" else rng.uniform(0.6, 0.8)) * horizon
        if light.name == "Daylight":
            draw.ellipse(
                (u - 1.5 * r, v - 1.5 * r, u + 1.5 * r, v + 1.5 * r), fill=mix(light.top, (255, 255, 240), 0.5)
            )
        draw.ellipse(
            (u - r, v - r, u + r, v + r), fill=(255, 252, 225) if light.name != "Dawn_dusk" else (255, 214, 110)
        )
    elif weather in ("Cloudy", "Rainy"):
        for _ in range(9):
            u, v = rng.uniform(0, width), rng.uniform(-0.05, 0.75) * horizon
            a, b = width * rng.uniform(0.1, 0.22), horizon * rng.uniform(0.08, 0.16)
            shade = 1.22 if weather == "Cloudy" and rng.random() < 0.6 else 0.72
            cloud = scaled(mix(light.top, light.low, 0.5), shade)
            for k in (-0.5, 0.0, 0.55):
                draw.ellipse((u + k * a - a * 0.6, v - b * (1 - abs(k)), u + k * a + a * 0.6, v + b), fill=cloud)


def _ground_colour(scene: Scene) -> Colour:
    hue = scene.look.ground_hue
    if scene.truth["Road_type"] in ("Parking_lot", "Road_segement", *INTERSECTIONS):
        base = mix((120, 118, 112), (150, 140, 124), hue)
    else:
        base = mix((92, 128, 62), (158, 142, 84), hue)
    if scene.truth["Weather"] == "Snowy" and hue > 0.4:
        base = mix(base, (225, 228, 235), 0.6)
    return base


def _asphalt(scene: Scene) -> Colour:
    grey = scene.look.asphalt
    match scene.truth["Road_surface_condition"]:
        case "Wet":
            return (int(grey * 0.5), int(grey * 0.53), int(grey * 0.6))
        case "Icy":
            return (int(grey * 1.1), int(grey * 1.2), int(grey * 1.32))
        case "Snowy":
            return (222, 225, 230)
    return (grey, grey, grey)


def _wide(camera: Camera, s: float, side: int) -> tuple[float, float]:
    """A point of the ground beyond the picture's edge, yet not so far aside that it lies behind a turned camera."""
    return camera.x - camera.bend * s * s + side * (2.5 * s + 1.0), s


def draw_ground(draw: ImageDraw, scene: Scene, camera: Camera, light: Light, travelled: float) -> None:
    """The land, the road with its surface and markings, and the cross road."""
    edge, ground, asphalt = road_edge(scene), _ground_colour(scene), _asphalt(scene)
    wet = scene.truth["Road_surface_condition"] == "Wet"
    road_type = scene.truth["Road_type"]
    bottom = camera.height + 1
    draw.rectangle((0, camera.skyline(), camera.width, bottom), fill=light.lit(ground, 60.0))
    cross = scene.look.crossing_s - travelled if road_type in INTERSECTIONS else -99.0
    side = 1.6 if road_type == "Road_segement" else (0.9 if road_type == "Highway/Freeway" else 0.0)
    for far, near in reversed(tuple(zip(ROWS[1:], ROWS, strict=False))):
        s = (far + near) / 2
        band = 0.94 if int((s + travelled) / 7) % 2 else 1.0
        quad = [camera.ground(*_wide(camera, z, side)) for z, side in ((far, -1), (far, 1), (near, 1), (near, -1))]
        draw.polygon(quad, fill=light.lit(ground, s, band if road_type == "Rural_road" else 1.0))
        if side:
            walk = light.lit((176, 172, 164) if side > 1 else asphalt, s)
            draw.polygon(
                [
                    camera.ground(x, z)
                    for x, z in ((-edge - side, far), (edge + side, far), (edge + side, near), (-edge - side, near))
                ],
                fill=walk,
            )
        colour = light.lit(asphalt, s)
        if wet:
            colour = mix(colour, light.low, min(0.55, s / 50))
        draw.polygon(
            [camera.ground(x, z) for x, z in ((-edge, far), (edge, far), (edge, 0.97 * near), (-edge, 0.97 * near))],
            fill=colour,
        )
    if cross + CROSS_HALF > 1.0:
        near, far = max(cross - CROSS_HALF, 0.7), cross + CROSS_HALF
        draw.polygon(
            [camera.ground(*_wide(camera, z, side)) for z, side in ((far, -1), (far, 1), (near, 1), (near, -1))],
            fill=light.lit(asphalt, max(cross, 1.0)),
        )
    _draw_surface(draw, scene, camera, light, travelled, edge)
    _draw_markings(draw, scene, camera, light, travelled, edge, cross)


def _stripe(draw: ImageDraw, camera: Camera, fill: Colour, x: float, half: float, near: float, far: float) -> None:
    near = max(near, 0.8)
    if far > near:
        draw.polygon(
            [
                camera.ground(x - half, far),
                camera.ground(x + half, far),
                camera.ground(x + half, near),
                camera.ground(x - half, near),
            ],
            fill=fill,
        )


def _draw_markings(
    draw: ImageDraw, scene: Scene, camera: Camera, light: Light, travelled: float, edge: float, cross: float
) -> None:
    look, lanes = scene.look, int(scene.truth["Lanes"])
    snowy = scene.truth["Road_surface_condition"] == "Snowy"
    white: Colour = (240, 240, 235) if not snowy else (60, 70, 90)
    yellow: Colour = (245, 200, 40) if not snowy else (190, 140, 20)
    gaps = (cross - CROSS_HALF, cross + CROSS_HALF)
    solid = [(x, white) for x in (-edge + 0.15, edge - 0.15)]
    middle = lane_centre(look.ours[0] - 0.5, lanes, look.lane_width)
    if look.two_way and lanes > 1:
        solid += [(middle - 0.18, yellow), (middle + 0.18, yellow)]
    for x, colour in solid:
        for far, near in zip(ROWS[2:], ROWS[1:], strict=False):
            if near > 50 or gaps[0] < (near + far) / 2 < gaps[1]:
                continue
            _stripe(draw, camera, light.lit(colour, near), x, 0.11 + 0.004 * near, near, far)
    for lane in range(1, lanes):
        x = lane_centre(lane - 0.5, lanes, look.lane_width)
        if look.two_way and abs(x - middle) < 0.1:
            continue
        start = -(travelled % 6.0)
        for k in range(9):
            near = start + 6.0 * k
            if near + 3.2 > 0.8 and not gaps[0] < near + 1.5 < gaps[1]:
                _stripe(
                    draw, camera, light.lit(white, max(near, 1.0)), x, 0.12 + 0.004 * max(near, 1), near, near + 3.2
                )
    if gaps[0] > 1.0:
        _stripe(draw, camera, light.lit(white, gaps[0]), 0.0, edge, gaps[0] - 0.7, gaps[0] - 0.1)
    if scene.scenario.zebra:
        here = _meeting_s(scene) - travelled
        if here > 1.5:
            for i in range(int(2 * edge / 1.0)):
                _stripe(
                    draw,
                    camera,
                    light.lit((250, 250, 250) if not snowy else (40, 46, 60), here),
                    -edge + 0.5 + i * 1.0,
                    0.28,
                    here - 1.6,
                    here + 1.6,
                )


def _meeting_s(scene: Scene) -> float:
    """Where in the world the contact is, in metres from ego's start."""
    return scene.motion.ego_speed * scene.motion.impact_s + scene.motion.other.s_contact


def _draw_surface(draw: ImageDraw, scene: Scene, camera: Camera, light: Light, travelled: float, edge: float) -> None:
    surface = scene.truth["Road_surface_condition"]
    if surface == "Dry":
        return
    if surface == "Snowy":
        for lane in range(int(scene.truth["Lanes"])):
            centre = lane_centre(lane, int(scene.truth["Lanes"]), scene.look.lane_width)
            for x in (centre - 0.75, centre + 0.75):
                for far, near in zip(ROWS[2:10], ROWS[1:9], strict=True):
                    _stripe(draw, camera, light.lit((118, 122, 130), near), x, 0.24, near, far)
        return
    pitch = 4.0 if surface == "Icy" else 5.0
    first = int(travelled / pitch)
    for k in range(first + 9, first - 1, -1):
        spread = (
            scene.look.randoms[(k * 7) % 64],
            scene.look.randoms[(k * 11 + 3) % 64],
            scene.look.randoms[(k * 5 + 1) % 64],
        )
        s = k * pitch + spread[0] * 2 - travelled + 2.0
        for x, size in (
            (edge * (spread[1] * 1.9 - 1.0), 0.7 + spread[2]),
            (edge * (1.0 - spread[2] * 1.9), 0.6 + spread[1]),
        ):
            if s - size * 1.3 < 0.8:
                continue
            _draw_patch(draw, camera, light, surface, x, s, size, k)


def _draw_patch(
    draw: ImageDraw, camera: Camera, light: Light, surface: str, x: float, s: float, size: float, k: int
) -> None:
    if surface == "Wet":
        shape = ((0, 1), (0.7, 0.75), (1, 0), (0.7, -0.75), (0, -1), (-0.7, -0.75), (-1, 0), (-0.7, 0.75))
        points = [camera.ground(x + a * size * 1.3, s + b * size * 1.2) for a, b in shape]
        draw.polygon(points, fill=mix(light.lit((70, 84, 104), s), light.low, 0.55))
        return
    shape = ((-0.2, 1.0), (0.9, 0.6), (0.5, 0.1), (1.1, -0.7), (0.1, -0.5), (-0.8, -1.0), (-0.5, -0.1), (-1.1, 0.5))
    flip = 1 if k % 2 else -1
    points = [camera.ground(x + flip * a * size * 1.1, s + b * size * 1.3) for a, b in shape]
    draw.polygon(points, fill=light.lit((190, 228, 248), s, 1.12))


def _post(draw: ImageDraw, camera: Camera, fill: Colour, x: float, s: float, height: float, half: float) -> None:
    (u, v), (_, top) = camera.ground(x, s), camera.ground(x, s, height)
    w = max(0.6, camera.pixels(half, s))
    draw.rectangle((u - w, min(top, v), u + w, max(top, v)), fill=fill)


def roadside(draw: ImageDraw, scene: Scene, camera: Camera, light: Light, travelled: float) -> Iterator[Item]:
    """(distance, draw call) of everything beside the road."""
    road, edge = scene.truth["Road_type"], road_edge(scene)
    here = partial(_slots, scene, travelled)
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


def _slots(scene: Scene, travelled: float, pitch: float, reach: float) -> Iterator[tuple[int, float, int, float]]:
    """(number, distance, side, random) of things that stand `pitch` metres apart on both sides."""
    for k in range(int(travelled / pitch), int((travelled + reach) / pitch) + 1):
        for side in (-1, 1):
            r = scene.look.randoms[(k * 13 + 31 * (side > 0)) % 64]
            s = k * pitch + r * pitch * 0.3 - travelled + 1.0
            if s > 1.2:
                yield k, s, side, r


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


def draw_light_pools(draw: ImageDraw, scene: Scene, camera: Camera, light: Light, travelled: float) -> None:
    """Bright ovals on the road under the street lamps."""
    if light.name != "Dark_lighted":
        return
    edge = road_edge(scene)
    shape = ((0, 1), (0.7, 0.7), (1, 0), (0.7, -0.7), (0, -1), (-0.7, -0.7), (-1, 0), (-0.7, 0.7))
    for _, s, side, _ in _slots(scene, travelled, 16.0, 64.0):
        if s > 5.5:
            for size, share in ((3.4, 1.25), (2.2, 1.5)):
                points = [camera.ground(side * (edge - 1.0) + a * size * 0.8, s + b * size) for a, b in shape]
                draw.polygon(points, fill=light.lit(mix(_asphalt(scene), (255, 220, 150), 0.35), s, share))


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
