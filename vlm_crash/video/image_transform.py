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

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


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
    """[F, image_size, image_size, 3] uint8; arguments and errors as those of `to_pixel_values`."""
    if frames_FHWC.ndim != 4 or frames_FHWC.shape[-1] != 3 or frames_FHWC.dtype != np.uint8:
        raise ValueError(
            f"frames have shape {frames_FHWC.shape} and dtype {frames_FHWC.dtype}; need [F, H, W, 3] uint8"
        )
    if image_size < 1:
        raise ValueError(f"image_size={image_size}: need at least 1 pixel")
    # The permuted view is channels-last: torchvision then resizes uint8 about ten times faster than after
    # .contiguous() or a cast to float, with values within one grey level of PIL's.
    frames_FCHW = torch.from_numpy(frames_FHWC).permute(0, 3, 1, 2)
    size = [image_size, image_size]
    frames_FCHW = F.resize(frames_FCHW, size, interpolation=InterpolationMode.BICUBIC, antialias=True)
    return np.ascontiguousarray(frames_FCHW.permute(0, 2, 3, 1).numpy())


def normalised(frames_FHWC: np.ndarray) -> Tensor:
    """[F, 3, H, W] float32 of uint8 RGB, normalised with ImageNet's mean and standard deviation."""
    num_frames, height, width, _ = frames_FHWC.shape
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    # numpy asks Linux for huge pages, torch does not: the page faults of 77 MB cost more than all the arithmetic.
    pixels_FCHW = torch.from_numpy(np.empty((num_frames, 3, height, width), np.float32))
    # Frame by frame and in place: each one stays in the processor's cache, and no second batch of floats is made.
    for pixels_CHW, frame_HWC in zip(pixels_FCHW, torch.from_numpy(frames_FHWC), strict=True):
        pixels_CHW.copy_(frame_HWC.permute(2, 0, 1)).div_(255).sub_(mean).div_(std)
    return pixels_FCHW
