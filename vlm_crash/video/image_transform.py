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
        frames_FHWC: [F, H, W, 3] uint8 RGB.
        image_size: side of the square, in pixels (448 for InternVL).

    Returns:
        [F, 3, image_size, image_size] float32.

    Raises:
        ValueError: another shape or dtype, or an image_size below 1.
    """
    if frames_FHWC.ndim != 4 or frames_FHWC.shape[-1] != 3 or frames_FHWC.dtype != np.uint8:
        raise ValueError(
            f"frames have shape {frames_FHWC.shape} and dtype {frames_FHWC.dtype}; need [F, H, W, 3] uint8"
        )
    return normalised(to_square(frames_FHWC, image_size))


def to_square(frames_FHWC: np.ndarray, image_size: int) -> np.ndarray:
    """Resize to a square (bicubic, antialiased): [F, image_size, image_size, 3] uint8; frames of that size stay.

    Raises:
        ValueError: an image_size below 1.
    """
    if image_size < 1:
        raise ValueError(f"image_size={image_size}: need at least 1 pixel")
    # The permuted view is channels-last: torchvision then resizes uint8 about ten times faster than after
    # .contiguous() or a cast to float, with values within one grey level of PIL's.
    frames_FCHW = torch.from_numpy(frames_FHWC).permute(0, 3, 1, 2)
    size = [image_size, image_size]
    frames_FCHW = F.resize(frames_FCHW, size, interpolation=InterpolationMode.BICUBIC, antialias=True)
    resized_FHWC: np.ndarray = frames_FCHW.permute(0, 2, 3, 1).numpy()
    return resized_FHWC


def normalised(frames_FHWC: np.ndarray) -> Tensor:
    """uint8 frames as [F, 3, H, W] float32, by ImageNet's mean and standard deviation."""
    frames_FCHW = torch.from_numpy(frames_FHWC).permute(0, 3, 1, 2)
    # One array of floats, worked on in place: fresh pages for each step would take most of the time.
    pixels_F3HW = frames_FCHW.to(torch.float32, memory_format=torch.contiguous_format)
    mean = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
    std = torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)
    return pixels_F3HW.div_(255).sub_(mean).div_(std)
