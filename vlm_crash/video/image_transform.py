"""uint8 frames become the normalised pixel values that InternVL's vision tower expects.

In: [F, H, W, 3] uint8 RGB. Out: [F, 3, S, S] float32. The same path serves training, validation and prediction.
"""

# Suffixes: F frames, H height, W width, C colour channels.

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from vlm_crash.video.reused_memory import ReusedMemory

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
#: Of the square's height: up to there, to add rows to what is read is quicker than to read them.
_LOW = 0.85
_GROUP = 4  # channels of a pixel


def to_pixel_values(frames_FHWC: np.ndarray, image_size: int) -> Tensor:
    """Resize to a square (bicubic, antialiased) and normalise with ImageNet's mean and standard deviation.

    Args:
        frames_FHWC: [F, H, W, 3] uint8 RGB; what has that size already is only normalised.
        image_size: side of the square, in pixels (448 for InternVL).

    Returns:
        [F, 3, image_size, image_size] float32.

    Raises:
        ValueError: another shape or dtype, or an image_size below 1.
    """
    return normalised(resized(frames_FHWC, image_size))


def resized(frames_FHWC: np.ndarray, image_size: int) -> np.ndarray:
    """[F, image_size, image_size, 3] uint8; arguments and errors as those of `to_pixel_values`.

    Columns first, then rows, with whole grey levels in between, as PIL does it.
    """
    return _with_rows(_with_columns(frames_FHWC, image_size), image_size)


def to_be_resized(frames_FHWC: np.ndarray, image_size: int) -> np.ndarray:
    """[F, H, image_size, 3] uint8 of which `resized` makes just what it makes of the whole frames.

    A clip that is lower than the square has its own H rows still, which are fewer bytes to keep; of others H is
    image_size.
    """
    frames_FHWC = _with_columns(frames_FHWC, image_size)
    is_low = frames_FHWC.shape[1] <= _LOW * image_size and image_size % _GROUP == 0
    return frames_FHWC if is_low else _with_rows(frames_FHWC, image_size)


def _with_columns(frames_FHWC: np.ndarray, image_size: int) -> np.ndarray:
    if frames_FHWC.ndim != 4 or frames_FHWC.shape[-1] != 3 or frames_FHWC.dtype != np.uint8:
        raise ValueError(
            f"frames have shape {frames_FHWC.shape} and dtype {frames_FHWC.dtype}; need [F, H, W, 3] uint8"
        )
    if image_size < 1:
        raise ValueError(f"image_size={image_size}: need at least 1 pixel")
    _, height, width, _ = frames_FHWC.shape
    return frames_FHWC if width == image_size else _bicubic(frames_FHWC, height, image_size)


def _with_rows(frames_FHWC: np.ndarray, image_size: int) -> np.ndarray:
    num_frames, height, width, colours = frames_FHWC.shape
    if height == image_size:
        return frames_FHWC
    planes_FCHW = frames_FHWC.transpose(0, 3, 1, 2)
    if not planes_FCHW.flags.c_contiguous or width % _GROUP:
        return _bicubic(frames_FHWC, image_size, width)
    # From the cache. Neighbours of a row do not meet: four of them are taken for a pixel's channels, see _bicubic.
    rows_NHWC = planes_FCHW.reshape(num_frames * colours, height, width // _GROUP, _GROUP)
    rows_NHWC = _bicubic(rows_NHWC, image_size, width // _GROUP)
    return rows_NHWC.reshape(num_frames, colours, image_size, width).transpose(0, 2, 3, 1)


def _bicubic(frames_FHWC: np.ndarray, height: int, width: int) -> np.ndarray:
    # The permuted view is channels-last, of three or four channels: torchvision then resizes uint8 about ten times
    # faster than other layouts or a cast to float, with values within one grey level of PIL's.
    frames_FCHW = torch.from_numpy(frames_FHWC).permute(0, 3, 1, 2)
    frames_FCHW = F.resize(frames_FCHW, [height, width], interpolation=InterpolationMode.BICUBIC, antialias=True)
    return np.ascontiguousarray(frames_FCHW.permute(0, 2, 3, 1).numpy())


def normalised(frames_FHWC: np.ndarray) -> Tensor:
    """[F, 3, H, W] float32 of uint8 RGB, normalised with ImageNet's mean and standard deviation."""
    num_frames, height, width, _ = frames_FHWC.shape
    mean, std = (torch.tensor(values).view(3, 1, 1) * 255 for values in (IMAGENET_MEAN, IMAGENET_STD))
    pixels_FCHW = _memory.floats((num_frames, 3, height, width))
    # In levels of 255, as transformers' processors do it: one division less, and nearer to the exact values.
    # Frame by frame and in place: each one stays in the processor's cache, and no second batch of floats is made.
    for pixels_CHW, frame_HWC in zip(pixels_FCHW, torch.from_numpy(frames_FHWC), strict=True):
        pixels_CHW.copy_(frame_HWC.permute(2, 0, 1)).sub_(mean).div_(std)
    return pixels_FCHW


_memory = ReusedMemory()
