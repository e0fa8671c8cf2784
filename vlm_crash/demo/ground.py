"""The land and the road: its surface, markings, cross road and the lamps' light on it.

In: a view. Out: polygons, drawn at once from far to near, so that a crest hides what lies behind it. Must hold:
everything lies still in the world, so that its motion in the picture is ego's own.
"""

from collections.abc import Iterator

from vlm_crash.demo.camera import Camera
from vlm_crash.demo.light import mix
from vlm_crash.demo.view import View
from vlm_crash.demo.world import Colour, Scene, lane_centre

ROWS = (0.6, 2.0, 3.2, 4.6, 6.5, 9.0, 12.5, 17.0, 23.0, 31.0, 45.0, 70.0, 130.0)
CROSS_HALF = 4.5  # half the cross road's width
INTERSECTIONS = ("Signalized_intersection", "nonSignalized_intersection")
_VERGES = {"Road_segement": 1.6, "Highway/Freeway": 0.9}  # sidewalk, shoulder
_ROUND = ((0.0, 1.0), (0.7, 0.72), (1.0, 0.0), (0.7, -0.72), (0.0, -1.0), (-0.7, -0.72), (-1.0, 0.0), (-0.7, 0.72))
_RAGGED = (
    (-0.2, 1.0), (0.9, 0.6), (0.5, 0.1), (1.1, -0.7), (0.1, -0.5), (-0.8, -1.0), (-0.5, -0.1), (-1.1, 0.5),
)  # fmt: skip


def road_edge(scene: Scene) -> float:
    """Half the road's width in metres."""
    return int(scene.truth["Lanes"]) * scene.look.lane_width / 2


def slots(view: View, pitch: float, reach: float) -> Iterator[tuple[int, float, int, float]]:
    """(number, distance, side, random) of things that stand `pitch` metres apart on both sides."""
    travelled, randoms = view.travelled, view.scene.look.randoms
    for k in range(int(travelled / pitch), int((travelled + reach) / pitch) + 1):
        for side in (-1, 1):
            r = randoms[(k * 13 + 31 * (side > 0)) % 64]
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


def _wide(camera: Camera, near: float, far: float) -> list[tuple[float, float]]:
    """Ground as wide as the picture, yet not so far aside that it lies behind a turned camera."""
    middle_near, middle_far = camera.x - camera.bend * near * near, camera.x - camera.bend * far * far
    aside_near, aside_far = 2.5 * near + 1.0, 2.5 * far + 1.0
    return [
        (middle_far - aside_far, far), (middle_far + aside_far, far),
        (middle_near + aside_near, near), (middle_near - aside_near, near),
    ]  # fmt: skip


def draw_ground(view: View) -> None:
    """The land, the road with its surface and markings, and the cross road."""
    scene, camera, light = view.scene, view.camera, view.light
    edge, ground, asphalt = road_edge(scene), _ground_colour(scene), _asphalt(scene)
    road = scene.truth["Road_type"]
    wet, verge = scene.truth["Road_surface_condition"] == "Wet", _VERGES.get(road, 0.0)
    view.draw.rectangle((0, camera.skyline(), camera.width, camera.height + 1), fill=light.lit(ground, 60.0))
    for far, near in reversed(tuple(zip(ROWS[1:], ROWS, strict=False))):
        s = (far + near) / 2
        furrow = 0.94 if road == "Rural_road" and int((s + view.travelled) / 7) % 2 else 1.0
        view.patch(_wide(camera, near, far), light.lit(ground, s, furrow))
        near *= 0.97  # overlaps: no gap shows between rows
        if verge:
            beside = light.lit((176, 172, 164) if road == "Road_segement" else asphalt, s)
            view.strip((-edge - verge, edge + verge), (near, far), beside)
        colour = light.lit(asphalt, s)
        view.strip((-edge, edge), (near, far), mix(colour, light.low, min(0.55, s / 50)) if wet else colour)
    cross = scene.look.crossing_s - view.travelled if road in INTERSECTIONS else -99.0
    if cross + CROSS_HALF > 1.0:
        near, far = max(cross - CROSS_HALF, 0.7), cross + CROSS_HALF
        view.patch(_wide(camera, near, far), light.lit(asphalt, max(cross, 1.0)))
    _draw_surface(view, edge)
    _draw_markings(view, edge, cross)


def _line(view: View, colour: Colour, x: float, half: float, near: float, far: float) -> None:
    """A painted stripe along the road, its part ahead of the camera."""
    near = max(near, 0.8)
    if far > near:
        view.strip((x - half, x + half), (near, far), colour)


def _draw_markings(view: View, edge: float, cross: float) -> None:
    scene, light, lanes, width = view.scene, view.light, int(view.scene.truth["Lanes"]), view.scene.look.lane_width
    snowy = scene.truth["Road_surface_condition"] == "Snowy"
    white: Colour = (60, 70, 90) if snowy else (240, 240, 235)
    yellow: Colour = (190, 140, 20) if snowy else (245, 200, 40)
    gap = (cross - CROSS_HALF, cross + CROSS_HALF)
    middle = lane_centre(scene.look.ours[0] - 0.5, lanes, width) if scene.look.two_way else None
    solid = [(0.15 - edge, white), (edge - 0.15, white)]
    if middle is not None:
        solid += [(middle - 0.18, yellow), (middle + 0.18, yellow)]
    for x, colour in solid:
        for far, near in zip(ROWS[2:], ROWS[1:], strict=False):
            if near < 50 and not gap[0] < (near + far) / 2 < gap[1]:
                _line(view, light.lit(colour, near), x, 0.11 + 0.004 * near, near, far)
    borders = [lane_centre(lane - 0.5, lanes, width) for lane in range(1, lanes)]
    for x in borders:
        if middle is not None and abs(x - middle) < 0.1:
            continue
        for k in range(9):
            near = 6.0 * k - view.travelled % 6.0
            if not gap[0] < near + 1.5 < gap[1]:
                _line(view, light.lit(white, max(near, 1.0)), x, 0.12 + 0.004 * max(near, 1), near, near + 3.2)
    if gap[0] > 1.0:
        _line(view, light.lit(white, gap[0]), 0.0, edge, gap[0] - 0.7, gap[0] - 0.1)
    if scene.scenario.zebra:
        _draw_zebra(view, edge, (40, 46, 60) if snowy else (250, 250, 250))


def _draw_zebra(view: View, edge: float, colour: Colour) -> None:
    """A marked crossing where ego and the pedestrian meet."""
    motion = view.scene.motion
    s = motion.ego_speed * motion.impact_s + motion.other.s_contact - view.travelled
    if s > 1.5:
        for i in range(int(2 * edge)):
            _line(view, view.light.lit(colour, s), 0.5 + i - edge, 0.28, s - 1.6, s + 1.6)


def _draw_surface(view: View, edge: float) -> None:
    """Tyre tracks in snow, puddles, or patches of ice."""
    scene, lanes = view.scene, int(view.scene.truth["Lanes"])
    surface = scene.truth["Road_surface_condition"]
    if surface == "Snowy":
        for lane in range(lanes):
            centre = lane_centre(lane, lanes, scene.look.lane_width)
            for x in (centre - 0.75, centre + 0.75):
                for far, near in zip(ROWS[2:10], ROWS[1:9], strict=True):
                    _line(view, view.light.lit((118, 122, 130), near), x, 0.24, near, far)
    elif surface in ("Wet", "Icy"):
        pitch, randoms = (4.0 if surface == "Icy" else 5.0), scene.look.randoms
        first = int(view.travelled / pitch)
        for k in range(first + 9, first - 1, -1):
            a, b, c = randoms[(k * 7) % 64], randoms[(k * 11 + 3) % 64], randoms[(k * 5 + 1) % 64]
            s = k * pitch + a * 2 - view.travelled + 2.0
            for x, size in ((edge * (b * 1.9 - 1.0), 0.7 + c), (edge * (1.0 - c * 1.9), 0.6 + b)):
                if s - size * 1.3 > 0.8:
                    _draw_patch(view, surface, x, s, size, 1 if k % 2 else -1)


def _draw_patch(view: View, surface: str, x: float, s: float, size: float, flip: int) -> None:
    light = view.light
    if surface == "Wet":
        puddle = [(x + a * size * 1.3, s + b * size * 1.2) for a, b in _ROUND]
        view.patch(puddle, mix(light.lit((70, 84, 104), s), light.low, 0.55))
    else:
        ice = [(x + flip * a * size * 1.1, s + b * size * 1.3) for a, b in _RAGGED]
        view.patch(ice, light.lit((190, 228, 248), s, 1.12))


def draw_light_pools(view: View) -> None:
    """Bright ovals on the road under the street lamps."""
    if view.light.name != "Dark_lighted":
        return
    edge, bright = road_edge(view.scene), mix(_asphalt(view.scene), (255, 220, 150), 0.35)
    for _, s, side, _ in slots(view, 16.0, 64.0):
        if s > 5.5:
            for size, share in ((3.4, 1.25), (2.2, 1.5)):
                pool = [(side * (edge - 1.0) + a * size * 0.8, s + b * size) for a, b in _ROUND]
                view.patch(pool, view.light.lit(bright, s, share))
