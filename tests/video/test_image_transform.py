import numpy as np
import pytest
import torch
from PIL import Image

from vlm_crash.video.image_transform import IMAGENET_MEAN, IMAGENET_STD, to_pixel_values


def random_frames(num_frames: int, height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (num_frames, height // 8, width // 8, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


@pytest.mark.parametrize("size", [(96, 160), (24, 40)], ids=["smaller", "larger"])
def test_equals_pil_bicubic_within_two_levels(size):
    """Upstream resizes with PIL; two grey levels of 255 are the rounding of two different integer kernels."""
    frames_FHWC = random_frames(2, *size)
    got_FCHW = to_pixel_values(frames_FHWC, 56)
    for got_CHW, frame_HWC in zip(got_FCHW, frames_FHWC, strict=True):
        want_HWC = np.asarray(Image.fromarray(frame_HWC).resize((56, 56), Image.Resampling.BICUBIC), np.float32)
        back_HWC = got_CHW.permute(1, 2, 0).numpy() * np.array(IMAGENET_STD) + np.array(IMAGENET_MEAN)
        apart_HWC = np.abs(back_HWC * 255 - want_HWC)
        assert apart_HWC.max() <= 2.01
        assert (apart_HWC <= 1.01).mean() >= 0.999


def test_shape_dtype_and_normalisation():
    frames_FHWC = np.zeros((3, 20, 30, 3), np.uint8)
    frames_FHWC[..., 0] = 255  # red: tells RGB from BGR
    pixels_FCHW = to_pixel_values(frames_FHWC, 28)
    assert pixels_FCHW.shape == (3, 3, 28, 28)
    assert pixels_FCHW.dtype == torch.float32
    assert pixels_FCHW.is_contiguous()
    want_C = (torch.tensor([1.0, 0.0, 0.0]) - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    torch.testing.assert_close(pixels_FCHW, want_C.view(1, 3, 1, 1).expand_as(pixels_FCHW))


@pytest.mark.parametrize(
    "frames",
    [np.zeros((3, 20, 30), np.uint8), np.zeros((3, 20, 30, 4), np.uint8), np.zeros((3, 20, 30, 3), np.float32)],
)
def test_refuses_other_arrays(frames):
    with pytest.raises(ValueError, match=r"need \[F, H, W, 3\] uint8"):
        to_pixel_values(frames, 28)


def test_refuses_no_pixels():
    with pytest.raises(ValueError, match="image_size=0"):
        to_pixel_values(np.zeros((1, 4, 4, 3), np.uint8), 0)
