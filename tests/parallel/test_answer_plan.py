"""Planned memory of answering against a count of real tensors, and against a GPU's allocator where there is one."""

from dataclasses import replace
from multiprocessing import get_context

import pytest
import torch
from benches.answer_memory import card_moments, counted_moments
from benches.memory import measured_peak
from benches.plan import config_of
from transformers import InternVLForConditionalGeneration

from vlm_crash.models.vision import image_features
from vlm_crash.parallel.memory_plan import GIB, Card
from vlm_crash.parallel.memory_predict import (
    LOAD_IN,
    MOMENTS,
    PARTS,
    AnswerPlan,
    AnswerSetting,
    answer_proposals,
    weight_bytes,
)
from vlm_crash.parallel.memory_shapes import NAMED, Shape, Tower

#: Wide enough that attention's matrices do not hide the rest.
SMALL = Shape(
    Tower(256, 3, 4, 4, 1024, gated=False, rms=False, qkv_bias=True, out_bias=True),
    Tower(256, 3, 8, 2, 768, gated=True, rms=True, qkv_bias=True, out_bias=False),
    128, 8, 2, 2000, tied=False, merged_tokens=16,
)  # fmt: skip
BASE = AnswerSetting(num_frames=16, text_tokens=200, answer_tokens=300)


def planned(shape: Shape, setting: AnswerSetting) -> dict[str, float]:
    return AnswerPlan(shape, setting, Card(reserve_gib=0)).moments


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"vision_chunk": 4},
        {"width": 4},
        {"is_form": False, "answer_tokens": 20},
    ],
    ids=str,
)
def test_the_plan_is_what_is_counted(changes):
    setting = replace(BASE, **changes)
    counted, plan = counted_moments(SMALL, setting), planned(SMALL, setting)
    assert {moment: plan[moment] * GIB for moment in MOMENTS} == pytest.approx(counted, rel=0.1)


def test_a_batch_with_padding_needs_no_more():
    """Beside a mask torch 2.14 repeats no keys and values, and the plan has them."""
    setting = replace(BASE, vision_chunk=2, batch_size=3)
    counted, plan = counted_moments(SMALL, setting), planned(SMALL, setting)
    assert max(counted.values()) <= max(plan.values()) * GIB < 1.15 * max(counted.values())


def test_the_plan_is_what_a_process_allocates():
    """The vision tower in fp32, run on the CPU; weights and pixels are there before."""
    setting = replace(BASE, width=4, vision_chunk=4)
    with torch.no_grad():
        model = InternVLForConditionalGeneration(config_of(SMALL)).eval()
        pixels = torch.randn(16, 3, 128, 128)
        peak = measured_peak(lambda: image_features(model, pixels, [16], 4))
    before = weight_bytes(SMALL, None, 4) + pixels.nbytes
    assert weight_bytes(SMALL, None, 4) == sum(parameter.nbytes for parameter in model.parameters())
    assert planned(SMALL, setting)["vision"] * GIB == pytest.approx(before + peak, rel=0.1)


def test_1b_with_a_batch():
    """The shape and the merging that a lab has; 8 frames, so that counting takes seconds."""
    setting = AnswerSetting(num_frames=8, batch_size=2, vision_chunk=4)
    counted, plan = counted_moments(NAMED["1B"], setting), planned(NAMED["1B"], setting)
    assert max(plan.values()) * GIB == pytest.approx(max(counted.values()), rel=0.1)


def test_fewer_bits_are_the_language_models_alone():
    shape = NAMED["8B"]
    whole, eight, four = (weight_bytes(shape, kind) for kind in LOAD_IN)
    language = shape.language
    matrices = language.layers * sum(wide * narrow for wide, narrow in language.matrices.values())
    assert whole == 2 * sum(shape.parameters.values()) and round(whole / GIB) == 15
    assert whole - eight == pytest.approx(matrices, rel=0.001)
    assert whole - four == pytest.approx(1.484 * matrices, rel=0.001)


def test_parts_sum_to_the_peak_and_every_part_is_there():
    plan = AnswerPlan(NAMED["8B"], AnswerSetting(128, vision_chunk=1, answer_tokens=4000), Card())
    assert sum(plan.parts.values()) == pytest.approx(plan.peak_gib) == pytest.approx(max(plan.moments.values()))
    assert all(plan.most[part] >= plan.parts[part] and plan.most[part] > 0 for part in PARTS)


def test_proposals_do_what_they_say():
    plan = AnswerPlan(NAMED["8B"], AnswerSetting(64, batch_size=4), Card(14.6))
    found = answer_proposals(plan)
    peaks = [plan.peak_gib, *(row.plan.peak_gib for row in found)]
    assert peaks == sorted(peaks, reverse=True) and found[-1].plan.fits and not found[-2].plan.fits
    assert found[-1].plan.setting.load_in == "8bit" and found[-1].plan.setting.vision_chunk
    for row in found:
        assert row.alone.peak_gib <= plan.peak_gib and "--" in row.what


@pytest.mark.gpu
@pytest.mark.parametrize(
    "setting",
    [AnswerSetting(32, vision_chunk=8), AnswerSetting(16, batch_size=2), AnswerSetting(32, 4, 8)],
    ids=lambda setting: f"{setting.batch_size}x{setting.num_frames}",
)
def test_the_plan_is_what_a_gpu_allocates(setting):
    with get_context("spawn").Pool(1) as pool:
        allocated = pool.apply(card_moments, (NAMED["1B"], setting))
    plan = planned(NAMED["1B"], setting)
    assert max(plan.values()) * GIB == pytest.approx(max(allocated.values()), rel=0.1)
