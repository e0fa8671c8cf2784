"""The camera's own marks: the hood below it and the noise of its sensor."""

from functools import lru_cache

import numpy as np

from vlm_crash.demo.view import View

_TILE = 700  # pixels; larger pictures repeat it


def draw_hood(view: View) -> None:
    """Ego's hood along the lower edge."""
    width, height = view.camera.width, view.camera.height
    top = height * (1 - view.scene.look.hood)
    outline = ((0.0, 1.0), (0.0, 0.05), (0.2, 0.01), (0.5, 0.0), (0.8, 0.01), (1.0, 0.05), (1.0, 1.0))
    points = [(width * u, top + height * v) for u, v in outline]
    view.draw.polygon(points, fill=view.light.lit(view.scene.look.hood_paint, 4.0, 0.6))


@lru_cache(maxsize=8)
def _noise_tile(sigma: int) -> np.ndarray:
    """Noise [_TILE, _TILE, 3] int16, made once for each strength."""
    unit = np.random.default_rng(0).standard_normal((_TILE, _TILE, 3), dtype=np.float32)
    return np.rint(unit * sigma).astype(np.int16)


def with_noise(view: View) -> np.ndarray:
    """The finished picture, uint8 [H, W, 3], with noise from another corner of the tile at every moment."""
    picture = np.asarray(view.image)
    height, width, _ = picture.shape
    rng = view.random("noise")
    top, left = rng.randrange(max(1, _TILE - height + 1)), rng.randrange(max(1, _TILE - width + 1))
    tile = _noise_tile(round(view.scene.look.noise))
    if height > _TILE or width > _TILE:
        tile = np.tile(tile, (-(-height // _TILE), -(-width // _TILE), 1))
    noisy = picture.astype(np.int16) + tile[top : top + height, left : left + width]
    return np.clip(noisy, 0, 255).astype(np.uint8)
