"""Pictures of training clips, changed so that what is said of the clip stays true.

In: [F, H, W, 3] uint8 frames, and a draw. Out: frames of the same form. Must hold: a draw is a function of seed, epoch
and clip alone, whatever process makes it; all frames of a clip are changed alike.
"""

# Suffixes: F frames, H height, W width, C colour channels.

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torchvision.transforms.v2 import functional as F

#: Larger changes leave nothing of a picture.
_MOST = {"brightness": 0.9, "contrast": 0.9, "saturation": 1.0, "crop": 0.5, "flip": 1.0}
_BEST_JPEG = 95


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training clips, each clip's frames alike (docs/sampling.md); 0: none.

    Args:
        brightness: light is multiplied by a number within this of 1 (0.2: from 0.8 to 1.2).
        contrast: the same of the contrast.
        saturation: the same of the colours.
        crop: most of the width, and of the height, that is cut off.
        jpeg: lowest quality, from 1 to 95, of the JPEG that frames are pressed into.
        flip: share of the clips that are mirrored; left and right of the record change places, by the schema's table
            `mirror`. A clip whose record has a "left" of which the table does not know what it means is not mirrored.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    crop: float = 0.0
    jpeg: int = 0
    flip: float = 0.0

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"augment.{name}={getattr(self, name)} is not in [0, {most:g}]; 0 leaves it out")
        if not 0 <= self.jpeg <= _BEST_JPEG:
            raise ValueError(f"augment.jpeg={self.jpeg} is not in [1, {_BEST_JPEG}]; 0 leaves it out")

    @property
    def acts(self) -> bool:
        """Whether anything is changed."""
        return any(getattr(self, field.name) for field in fields(self))

    def draw(self, seed: int, epoch: int, clip: int) -> Draw:
        """What is done to a clip, known by a number of its own, in an epoch.

        Every number is drawn, so that one option does not shift the others.
        """
        number = np.random.default_rng([seed, epoch, clip]).random(9)
        widths = np.array([self.brightness, self.contrast, self.saturation])
        light, contrast, colour = map(float, 1 + widths * (2 * number[:3] - 1))
        height, width = 1 - self.crop * number[3:5]
        quality = round(self.jpeg + (_BEST_JPEG - self.jpeg) * number[7]) if self.jpeg else None
        flipped = bool(number[8] < self.flip)
        top, left = (1 - height) * number[5], (1 - width) * number[6]
        box = (float(top), float(left), float(height), float(width))
        return Draw(light, contrast, colour, box, quality, flipped)


#: Nothing is changed.
PLAIN = Augmentation()


@dataclass(frozen=True)
class Draw:
    """What is done to one clip; of `box` (top, left, height, width, in shares of the picture) the rest is cut off."""

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    quality: int | None = None
    flipped: bool = False

    def apply(self, frames_FHWC: np.ndarray) -> np.ndarray:
        """[F, H, W, 3] uint8 -> the same, of the box's size."""
        frames_FHWC = self._cropped(frames_FHWC)
        frames_FCHW = torch.from_numpy(np.ascontiguousarray(frames_FHWC)).permute(0, 3, 1, 2)
        if self.flipped:
            frames_FCHW = F.horizontal_flip(frames_FCHW)
        if self.brightness != 1:
            frames_FCHW = F.adjust_brightness(frames_FCHW, self.brightness)
        if self.contrast != 1:  # around the clip's mean, not each frame's
            count, channels, height, width = frames_FCHW.shape
            tall_CHW = frames_FCHW.transpose(0, 1).reshape(channels, count * height, width)
            tall_CHW = F.adjust_contrast(tall_CHW, self.contrast)
            frames_FCHW = tall_CHW.reshape(channels, count, height, width).transpose(0, 1)
        if self.saturation != 1:
            frames_FCHW = F.adjust_saturation(frames_FCHW, self.saturation)
        if self.quality is not None:
            frames_FCHW = F.jpeg(frames_FCHW.contiguous(), self.quality)
        return np.ascontiguousarray(frames_FCHW.permute(0, 2, 3, 1).numpy())

    def _cropped(self, frames_FHWC: np.ndarray) -> np.ndarray:
        top, left, height, width = self.box
        full_height, full_width = frames_FHWC.shape[1:3]
        first, start = int(top * full_height), int(left * full_width)
        last = max(first + 1, round((top + height) * full_height))
        return frames_FHWC[:, first:last, start : max(start + 1, round((left + width) * full_width))]
