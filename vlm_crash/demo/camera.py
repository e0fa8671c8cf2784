"""A dashcam as a pinhole.

In: points of the road frame (x across, y up, s ahead; metres). Out: picture coordinates in pixels.
"""

import math

from vlm_crash.demo.motion import EgoState
from vlm_crash.demo.world import Look

NEAR = 0.35
Point = tuple[float, float]


class Camera:
    """Projects the road frame of one moment. A mirrored scene is mirrored here and nowhere else."""

    def __init__(self, look: Look, ego: EgoState, size: tuple[int, int]) -> None:
        width, height = size
        self.width, self.height = width, height
        self.focal = look.focal * width * (-1 if look.mirrored else 1)
        self.focal_v = look.focal * height * 16 / 9
        self.centre_u, self.centre_v = width / 2, look.horizon * height + ego.jolt * height
        self.up = look.camera_height
        self.x = ego.x
        self.cos, self.sin = math.cos(ego.yaw), math.sin(ego.yaw)
        self.roll_cos, self.roll_sin = math.cos(ego.roll), math.sin(ego.roll)
        self.bend, self.grade = look.bend / 2, look.grade

    def hill(self, s: float) -> float:
        """Height of the road at s metres ahead."""
        if self.grade > 0:
            over = max(0.0, min(s, 45.0) - 5.0)
            return self.grade * over * over / (over + 4.0)
        return self.grade * max(0.0, s - 8.0)

    def screen(self, x: float, y: float, s: float, base: float = 0.0, shift: float = 0.0) -> Point:
        """Picture coordinates of a point; `base` its ground's height, `shift` its bend: looked up once per object."""
        x = x - self.x + shift
        depth = x * self.sin + s * self.cos
        if depth < NEAR:
            depth = NEAR
        u = self.focal * (x * self.cos - s * self.sin) / depth
        v = self.focal_v * (self.up - y - base) / depth
        return (
            self.centre_u + u * self.roll_cos - v * self.roll_sin,
            self.centre_v + u * self.roll_sin + v * self.roll_cos,
        )

    def ground(self, x: float, s: float, y: float = 0.0) -> Point:
        """Picture coordinates of a point on (or `y` above) the road's own surface."""
        return self.screen(x, y, s, self.hill(s), self.bend * s * s)

    def skyline(self) -> float:
        """The row where the far ground ends."""
        return self.centre_v - self.focal_v * (self.hill(200.0) - self.up) / 200.0

    def pixels(self, metres: float, s: float) -> float:
        """How long `metres` at distance `s` look."""
        return abs(self.focal) * metres / max(s, NEAR)
