"""Which towers compute their activations again in the backward pass.

Enters: a model, towers. Leaves: the same model, whose layers keep their inputs alone. Non-reentrant: weights that are
shared out, frozen towers and keyword arguments work with it.
"""

from typing import Any

from transformers import InternVLForConditionalGeneration


def checkpoint_towers(model: InternVLForConditionalGeneration, towers: bool | list[str]) -> None:
    """Compute the activations of these towers again in the backward pass (True: of both) instead of keeping them.

    Raises:
        ValueError: not a tower that has layers.
    """
    parts: dict[str, Any] = {"vision": model.model.vision_tower, "language": model.model.language_model}
    chosen = list(parts) if towers is True else towers or []
    unknown = sorted(set(chosen) - set(parts))
    if unknown:
        raise ValueError(
            f"activation_checkpointing={unknown} are no towers with layers; "
            f"set --model.activation_checkpointing to true, false or some of {list(parts)}"
        )
    for tower in chosen:
        # Its name in transformers 5.0 to 5.22 was gradient_checkpointing_enable.
        enable = getattr(parts[tower], "activation_checkpointing_enable", None)
        (enable or parts[tower].gradient_checkpointing_enable)({"use_reentrant": False})
