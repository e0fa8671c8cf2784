"""One picture in the making: what every drawing function needs, and the three shapes that they share.

In: a scene, a moment, a size. Out: marks on the image. Must hold: no state but the image.
"""

from collections.abc import Iterable
from random import Random

from PIL import Image, ImageDraw

from vlm_crash.demo.camera import Camera
from vlm_crash.demo.light import Light
from vlm_crash.demo.motion import ego_state
from vlm_crash.demo.world import Colour, Scene


class View:
    """A scene at `t_s` seconds on an image of `size` (width, height)."""

    def __init__(self, scene: Scene, t_s: float, size: tuple[int, int]) -> None:
        ego = ego_state(scene, t_s)
        self.scene, self.t_s, self.travelled = scene, t_s, ego.travelled
        self.camera, self.light = Camera(scene.look, ego, size), Light(scene)
        self.image = Image.new("RGB", size)
        self.draw = ImageDraw.Draw(self.image)

    def patch(self, points: Iterable[tuple[float, ...]], colour: Colour) -> None:
        """A polygon given by points (x, s) of the ground, or (x, s, y) with y metres above it."""
        ground = self.camera.ground
        self.draw.polygon([ground(*point) for point in points], fill=colour)

    def strip(self, x: tuple[float, float], s: tuple[float, float], colour: Colour) -> None:
        """A rectangle of the ground, from x[0] to x[1] across and from s[0] to s[1] ahead."""
        self.patch(((x[0], s[1]), (x[1], s[1]), (x[1], s[0]), (x[0], s[0])), colour)

    def disc(self, u: float, v: float, r: float, colour: Colour) -> None:
        """A disc of `r` pixels around a point of the picture."""
        self.draw.ellipse((u - r, v - r, u + r, v + r), fill=colour)

    def post(self, x: float, s: float, height: float, half: float, colour: Colour) -> None:
        """An upright post, `height` and twice `half` metres large."""
        (u, v), (_, top) = self.camera.ground(x, s), self.camera.ground(x, s, height)
        w = max(0.6, self.camera.pixels(half, s))
        self.draw.rectangle((u - w, min(top, v), u + w, max(top, v)), fill=colour)

    def random(self, salt: str) -> Random:
        """Randomness of this moment, the same whenever it is drawn."""
        return Random(f"{self.scene.seed}/{round(self.t_s * 1000)}/{salt}")
