"""The land and the road: its surface, markings, cross road and the lamps' light on it.

In: a scene, a camera, a light, the metres travelled. Out: polygons, drawn at once from far to near, so that a crest hides
what lies behind it. Must hold: everything lies still in the world, so that its motion in the picture is ego's own.
"""

from collections.abc import Iterator

from PIL.ImageDraw import ImageDraw

from vlm_crash.demo.camera import Camera, Light, mix
from vlm_crash.demo.world import Colour, Scene, lane_centre

ROWS = (0.6, 2.0, 3.2, 4.6, 6.5, 9.0, 12.5, 17.0, 23.0, 31.0, 45.0, 70.0, 130.0)
CROSS_HALF = 4.5  # half the cross road's width
INTERSECTIONS = ("Signalized_intersection", "nonSignalized_intersection")


def road_edge(scene: Scene) -> float:
    """Half the road's width in metres."""
    return int(scene.truth["Lanes"]) * scene.look.lane_width / 2


def slots(scene: Scene, travelled: float, pitch: float, reach: float) -> Iterator[tuple[int, float, int, float]]:
    """(number, distance, side, random) of things that stand `pitch` metres apart on both sides."""
    for k in range(int(travelled / pitch), int((travelled + reach) / pitch) + 1):
        for side in (-1, 1):
            r = scene.look.randoms[(k * 13 + 31 * (side > 0)) % 64]
            s = k * pitch + r * pitch * 0.3 - travelled + 1.0
            if s > 1.2:
                yield k, s, side, r


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


def draw_light_pools(draw: ImageDraw, scene: Scene, camera: Camera, light: Light, travelled: float) -> None:
    """Bright ovals on the road under the street lamps."""
    if light.name != "Dark_lighted":
        return
    edge = road_edge(scene)
    shape = ((0, 1), (0.7, 0.7), (1, 0), (0.7, -0.7), (0, -1), (-0.7, -0.7), (-1, 0), (-0.7, 0.7))
    for _, s, side, _ in slots(scene, travelled, 16.0, 64.0):
        if s > 5.5:
            for size, share in ((3.4, 1.25), (2.2, 1.5)):
                points = [camera.ground(side * (edge - 1.0) + a * size * 0.8, s + b * size) for a, b in shape]
                draw.polygon(points, fill=light.lit(mix(_asphalt(scene), (255, 220, 150), 0.35), s, share))
