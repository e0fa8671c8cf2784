"""Bytes that answering a batch takes, counted: CrashVLM's own forward passes on tensors without memory, or on a GPU.

Enters: a Shape, an AnswerSetting (load_in unset). Leaves: bytes at the peak of each moment.
"""

# Suffixes: B batch, S sequence, N frames, V visual tokens, D hidden, K keys in the cache.

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import DynamicCache, InternVLForConditionalGeneration

from benches.common import Row, Table
from benches.memory import TensorBytes
from benches.plan import config_of
from vlm_crash.models.attention import set_attention
from vlm_crash.models.vision import image_features
from vlm_crash.parallel.memory_plan import GIB, Card
from vlm_crash.parallel.memory_predict import CHOICES, MOMENTS, AnswerPlan, AnswerSetting
from vlm_crash.parallel.memory_shapes import NAMED, Shape


def cases() -> list[tuple[str, Shape, AnswerSetting]]:
    """Of the 1B shape, and one of 8B."""
    base = AnswerSetting(num_frames=32, vision_chunk=8)
    one, plain = NAMED["1B"], NAMED["1B-plain"]
    return [
        ("1B, 32 frames, 8 at a time", one, base),
        ("1B, 32 frames, all at once", one, AnswerSetting(num_frames=32)),
        ("1B, 4 clips of 32 frames, 8 at a time", one, AnswerSetting(32, 4, 8)),
        ("1B, 128 frames, 4 at a time", one, AnswerSetting(128, 1, 4)),
        ("1B, 16 frames of 256 tokens", plain, AnswerSetting(16, 1, 8)),
        ("8B, 32 frames, 8 at a time", NAMED["8B"], base),
    ]


def comparison() -> Table:
    """The plan beside the count."""
    rows: list[Row] = []
    for name, shape, setting in cases():
        plan = AnswerPlan(shape, setting, Card(reserve_gib=0))
        counted = {moment: size / GIB for moment, size in counted_moments(shape, setting).items()}
        peak = max(counted.values())
        rows.append([name, peak, plan.peak_gib, plan.peak_gib / peak, plan.peak_moment])
        rows[-1] = [*rows[-1], *(plan.moments[moment] / counted[moment] for moment in MOMENTS)]
    return Table(
        "plan predict beside a count of tensors",
        "Peak of weights and tensors of CrashVLM's own passes in fp16 with math attention, context not in it: vision, "
        "the prompt through the language model, and the last pass of an answer of 1,024 tokens; counted on tensors "
        "without memory (FakeTensorMode), every operator's results from when they are made to when nothing refers to "
        "them.",
        [
            "case",
            "counted (GiB)",
            "plan (GiB)",
            "plan / counted",
            "peak in",
            *(f"{moment}, ratio" for moment in MOMENTS),
        ],
        rows,
    )


def counted_moments(shape: Shape, setting: AnswerSetting) -> dict[str, int]:
    """Bytes at the peak of each moment, weights and frames in them."""
    set_attention(setting.kernel)
    found = {}
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        model, ids_BS, pixels = _made(shape, setting)
        held = [*model.parameters(), *model.buffers(), pixels]
        passes = _passes(model, setting, ids_BS, pixels)
        counter = TensorBytes(held, counts_given=True)
        for moment in MOMENTS:
            counter.peak = counter.held
            with counter:
                passes[moment]()
            found[moment] = counter.peak
    return found


def card_moments(shape: Shape, setting: AnswerSetting) -> dict[str, int]:
    """The same from a GPU's allocator; to be called once in a process."""
    set_attention(setting.kernel)
    found = {}
    with torch.no_grad(), torch.device("cuda"):
        model, ids_BS, pixels = _made(shape, setting)
        passes = _passes(model, setting, ids_BS, pixels)
        for moment in MOMENTS:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            passes[moment]()
            torch.cuda.synchronize()
            found[moment] = torch.cuda.max_memory_allocated()
    return found


def _made(shape: Shape, setting: AnswerSetting) -> tuple[InternVLForConditionalGeneration, Tensor, Tensor]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32 if setting.width == 4 else torch.float16)
    try:
        model = InternVLForConditionalGeneration(config_of(shape)).eval()
    finally:
        torch.set_default_dtype(before)
    ids_BS = torch.full((setting.batch_size, setting.num_tokens(shape)), 7)
    frames = setting.batch_size * setting.num_frames
    return model, ids_BS, torch.zeros(frames, 3, shape.image_size, shape.image_size)


def _passes(
    model: InternVLForConditionalGeneration, setting: AnswerSetting, ids_BS: Tensor, pixels: Tensor
) -> dict[str, Callable[[], object]]:
    """CrashVLM's passes, without what looks at values: which ids are images."""
    there: dict[str, Any] = {}
    rows, tokens = ids_BS.shape

    def see() -> None:
        there["visual_VD"] = image_features(model, pixels, [setting.num_frames] * rows, setting.vision_chunk)

    def speak(embeds_BSD: Tensor, mask_BK: Tensor, position_ids: Tensor) -> Tensor:
        return model.model.language_model(
            inputs_embeds=embeds_BSD, attention_mask=mask_BK, position_ids=position_ids, past_key_values=there["cache"],
            use_cache=True,
        ).last_hidden_state  # fmt: skip

    def prompt() -> None:
        text_BSD = model.get_input_embeddings()(ids_BS)
        is_image_BS1 = (ids_BS == model.config.image_token_id).unsqueeze(-1)
        there["embeds_BSD"] = text_BSD.masked_scatter(is_image_BS1, there.pop("visual_VD"))
        del text_BSD, is_image_BS1
        there["cache"] = DynamicCache(config=model.config.get_text_config())
        position_ids_BS = torch.arange(tokens).expand(rows, -1)
        # One row needs no mask; a real batch has padding.
        mask = torch.ones(rows, 1, tokens, tokens, dtype=torch.bool) if rows > 1 else None
        hidden_BSD = speak(there["embeds_BSD"], mask, position_ids_BS)  # type: ignore[arg-type]
        _scores(model, hidden_BSD[:, -1])

    def answer() -> None:
        """The last pass of the longest answer; the cache is as long by then."""
        for layer in there["cache"].layers:
            longer = (*layer.keys.shape[:2], setting.answer_tokens - 1, layer.keys.shape[3])
            layer.keys = torch.cat([layer.keys, layer.keys.new_zeros(longer)], dim=2)
            layer.values = torch.cat([layer.values, layer.values.new_zeros(longer)], dim=2)
        length = tokens + setting.answer_tokens
        embeds_B1D = model.get_input_embeddings()(ids_BS[:, :1])
        position_ids = torch.full((rows, 1), length - 1)
        mask = torch.ones(rows, 1, 1, length, dtype=torch.bool) if rows > 1 else None
        hidden_B1D = speak(embeds_B1D, mask, position_ids)  # type: ignore[arg-type]
        _scores(model, hidden_B1D.expand(-1, CHOICES if setting.is_form else 1, -1).flatten(0, 1))

    return dict(zip(MOMENTS, (see, prompt, answer), strict=True))


def _scores(model: InternVLForConditionalGeneration, hidden_ND: Tensor) -> Tensor:
    logits_NV = model.lm_head(hidden_ND).float()
    return logits_NV.log_softmax(dim=1).max(dim=1).values
