import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

from vlm_crash.video.image_transform import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    normalised,
    resized,
    to_be_resized,
    to_pixel_values,
)


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


def test_normalised_is_the_formula_and_what_transformers_makes():
    levels_FHWC = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    got_FCHW = normalised(levels_FHWC)
    want_FHWC = (levels_FHWC / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    assert np.abs(got_FCHW.permute(0, 2, 3, 1).numpy() - want_FHWC).max() < 2.5e-7
    mean, std = (torch.tensor(values) * 255 for values in (IMAGENET_MEAN, IMAGENET_STD))
    levels_FCHW = torch.from_numpy(levels_FHWC).permute(0, 3, 1, 2).float()
    # As transformers' image processors have it, which divide by 255 and normalise in one (rescale_and_normalize).
    assert torch.equal(got_FCHW, F.normalize(levels_FCHW, mean, std))


@pytest.mark.parametrize(
    ("height", "width", "size", "kept"),
    [
        pytest.param(40, 100, 96, 40, id="low"),
        pytest.param(40, 24, 96, 40, id="low and narrow"),
        pytest.param(90, 160, 96, 96, id="nearly as high"),
        pytest.param(200, 160, 96, 96, id="high"),
        pytest.param(24, 40, 33, 33, id="rows of no whole pixels"),
        pytest.param(96, 96, 96, 96, id="a square"),
    ],
)
def test_resized_in_two_steps_is_resized(height, width, size, kept):
    """Bit for bit, also of planes, as the cache gives them back; the columns first, as torchvision does it in one."""
    frames_FHWC = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    want_FHWC = resized(frames_FHWC, size)
    half_FHWC = to_be_resized(frames_FHWC, size)
    assert half_FHWC.shape == (3, kept, size, 3)
    planes = np.ascontiguousarray(half_FHWC.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    for half in (half_FHWC, planes):
        np.testing.assert_array_equal(resized(half, size), want_FHWC)
        assert torch.equal(to_pixel_values(half, size), to_pixel_values(frames_FHWC, size))
    at_once_FCHW = F.resize(
        torch.from_numpy(frames_FHWC).permute(0, 3, 1, 2), [size, size], F.InterpolationMode.BICUBIC, antialias=True
    )
    assert np.abs(at_once_FCHW.permute(0, 2, 3, 1).numpy().astype(int) - want_FHWC).max() <= 1


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
