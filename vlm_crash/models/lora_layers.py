"""Adapters in a model: linear layers of the chosen towers get peft's, everything else is frozen.

Enters: a model with its weights, LoraSettings. Leaves: the same model. Invariants: modules keep their names (a layer's
own weight gets `base_layer` into its name); untrained adapters change nothing, as B is 0; what is trained is fp32,
whatever the base is.
"""

from pathlib import Path
from typing import Any

import torch
from peft import inject_adapter_in_model
from torch import Tensor, nn
from transformers import InternVLConfig, InternVLForConditionalGeneration

from vlm_crash.models.checkpoints import meta_model
from vlm_crash.models.lora import ADAPTER, BASE_DTYPES, PLACES, PROJECTOR, LoraSettings
from vlm_crash.models.shards import stored_tensors, weight_files

#: precision of Lightning's -> dtype of a frozen base that computes as an fp32 one would under its autocast.
AUTO = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


def inject(model: InternVLForConditionalGeneration, settings: LoraSettings, empty: bool = False) -> None:
    """Give a model its adapters, and freeze everything else (but the projector, where that is to be trained).

    Args:
        empty: leave the adapters without values (and memory).

    Raises:
        ValueError: the model has no layer of a name that was asked for.
    """
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    for tower in settings.towers:
        place = PLACES[tower].replace("\\", "")
        there = {name.rsplit(".", 1)[-1] for name in names if name.startswith(place)}
        missing = sorted(set(settings.layers(tower)) - there)
        if missing:
            raise ValueError(
                f"the {tower} tower of this model has no linear layers {missing}, it has {sorted(there)}; "
                "set --model.lora.targets to some of these"
            )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    inject_adapter_in_model(settings.peft_config(), model, ADAPTER, low_cpu_mem_usage=empty)
    for name, parameter in model.named_parameters():
        trains = f".{ADAPTER}." in name or (settings.projector and PROJECTOR in name)
        parameter.requires_grad_(trains)
        if trains:
            parameter.data = parameter.data.float()


def trained_shapes(config: InternVLConfig, settings: LoraSettings) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that a model of this config trains; nothing is computed."""
    model = meta_model(config)
    inject(model, settings, empty=True)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters() if parameter.requires_grad}


def dtype_on_disk(folder: Path) -> torch.dtype:
    """Of a folder's weights; float32 where they differ. To hold a base so costs nothing of it."""
    found = {stored.dtype for stored in stored_tensors(weight_files(folder)).values()}
    (dtype,) = found if len(found) == 1 else (torch.float32,)
    return dtype or torch.float32


def base_dtype(settings: LoraSettings, precision: str, is_sharded: bool) -> torch.dtype:
    """Of the frozen weights under a precision of Lightning's.

    Args:
        is_sharded: FSDPStrategy trains; it keeps shards in fp32 and gathers them in what it computes in.

    Raises:
        ValueError: adapters would not be fp32, or weights would be of another dtype than what computes with them.
    """
    if precision not in (*AUTO, "32-true"):
        raise ValueError(
            f"precision {precision} trains adapters that are not fp32; set --trainer.precision to 16-mixed, bf16-mixed "
            "or 32-true"
        )
    fits = torch.float32 if is_sharded else AUTO.get(precision, torch.float32)
    asked = BASE_DTYPES.get(settings.base_dtype, fits)
    if asked not in (fits, torch.float32):
        where = "under FSDPStrategy, which keeps fp32 shards" if is_sharded else f"at --trainer.precision {precision}"
        raise ValueError(
            f"lora.base_dtype={settings.base_dtype} cannot be {where}; set --model.lora.base_dtype to auto"
        )
    return asked


def set_base_dtype(model: InternVLForConditionalGeneration, dtype: torch.dtype) -> None:
    """Frozen matrices in a dtype; what is trained, and frozen vectors (norms, scales), in fp32.

    Under autocast the numbers are those of an fp32 base, whose matrices autocast rounds for each use: what is summed up
    from layer to layer stays fp32, as embeddings are widened before the first one (they alone are rounded here and not
    by autocast; that says something only of folders in fp32).

    Raises:
        ValueError: a weight is too large for float16.
    """
    for name, module in model.named_modules():
        is_matrix = isinstance(module, (nn.Linear, nn.Conv2d, nn.Embedding))
        for key, parameter in module.named_parameters(recurse=False):
            target = dtype if is_matrix and not parameter.requires_grad else torch.float32
            if target == torch.float16 and parameter.dtype != target and bool((parameter.abs() > 65504).any()):
                raise ValueError(
                    f"{name}.{key} has numbers above 65504, the largest of float16; "
                    "set --model.lora.base_dtype float32, which needs twice the memory"
                )
            parameter.data = parameter.data.to(target)
    embedding: Any = model.get_input_embeddings()
    if not getattr(embedding, "is_widened", False):
        embedding.register_forward_hook(_widened)
        embedding.is_widened = True


def _widened(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    """fp32 where autocast narrows it for each matrix anyway; nothing else may be summed in half precision."""
    return output.float() if torch.is_autocast_enabled(output.device.type) else output


def keep_trained_only(module: nn.Module) -> None:
    """A module's state_dict has its trained tensors alone from now on, and is loaded beside a base that is there."""

    def frozen() -> set[str]:
        return {name for name, value in module.named_parameters(remove_duplicate=False) if not value.requires_grad}

    def drop(_: nn.Module, state: dict[str, Any], prefix: str, __: Any) -> None:
        for name in frozen():
            state.pop(f"{prefix}{name}", None)

    def excuse(_: nn.Module, keys: Any) -> None:
        there = frozen()
        keys.missing_keys[:] = [name for name in keys.missing_keys if name not in there]

    module.register_state_dict_post_hook(drop)
    module.register_load_state_dict_post_hook(excuse)


def described(model: nn.Module, settings: LoraSettings, dtype: torch.dtype) -> str:
    """What is trained of what, in one line."""
    sizes = [(parameter.numel(), parameter.nbytes, parameter.requires_grad) for parameter in model.parameters()]
    trained, total = sum(size for size, _, trains in sizes if trains), sum(size for size, _, _ in sizes)
    frozen = sum(num_bytes for _, num_bytes, trains in sizes if not trains)
    return (
        f"LoRA of rank {settings.rank} on {' and '.join(settings.towers)}"
        f"{', and the projector' if settings.projector else ''}: {trained:,} of {total:,} parameters are trained "
        f"({trained / total:.2%}), in float32; the base is in {str(dtype).removeprefix('torch.')}: "
        f"{frozen / 2**30:.2f} GiB"
    )
