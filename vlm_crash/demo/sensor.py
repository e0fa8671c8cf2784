"""The camera's own marks: the hood below it and the noise of its sensor."""

from functools import lru_cache

import numpy as np
from PIL.ImageDraw import ImageDraw

from vlm_crash.demo.camera import Camera, Light, moment_random
from vlm_crash.demo.world import Scene

_TILE = 700


def draw_hood(draw: ImageDraw, scene: Scene, camera: Camera, light: Light) -> None:
    width, height = camera.width, camera.height
    top = height * (1 - scene.look.hood)
    paint = light.lit(scene.look.hood_paint, 4.0, 0.6)
    points = [
        (0, height),
        (0, top + height * 0.05),
        (width * 0.2, top + height * 0.01),
        (width * 0.5, top),
        (width * 0.8, top + height * 0.01),
        (width, top + height * 0.05),
        (width, height),
    ]
    draw.polygon(points, fill=paint)


@lru_cache(maxsize=1)
def _noise_tile() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((_TILE, _TILE, 3), dtype=np.float32)


@lru_cache(maxsize=8)
def _scaled_tile(tenths: int) -> np.ndarray:
    return np.rint(_noise_tile() * (tenths / 10)).astype(np.int16)


def add_noise(picture: np.ndarray, scene: Scene, t_s: float) -> np.ndarray:
    """The picture [H, W, 3] uint8 with the sensor's noise."""
    height, width, _ = picture.shape
    rng = moment_random(scene.seed, t_s, "noise")
    if height > _TILE or width > _TILE:
        return picture
    top, left = rng.randrange(_TILE - height + 1), rng.randrange(_TILE - width + 1)
    tile = _scaled_tile(round(scene.look.noise) * 10)[top : top + height, left : left + width]
    return np.clip(picture.astype(np.int16) + tile, 0, 255).astype(np.uint8)
