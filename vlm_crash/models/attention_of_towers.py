"""How each tower calls its attention, by the kernel that is to run.

Enters: a model whose towers call transformers' SDPA attention. Leaves: the same with what the kernel needs around it.
"""

from transformers import InternVLForConditionalGeneration

from vlm_crash.models.attention import repeats_keys
from vlm_crash.models.attention_by_frames import set_frame_chunk
from vlm_crash.models.attention_heads import repeat_heads


def set_tower_attention(model: InternVLForConditionalGeneration, attention: str, vision_chunk: int | None) -> None:
    """Vision: so many frames at once (None: all). Language: repeated keys where the kernel cannot share them.

    Args:
        attention: a word of `set_attention`, which chooses the kernel.
    """
    set_frame_chunk(model, vision_chunk)
    if attention == "efficient" or (attention == "auto" and repeats_keys()):
        repeat_heads(model)
