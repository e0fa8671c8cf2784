"""Matrices in fewer bits, for answers alone: on a card that has no room for fp16, or on a CPU in less time.

Enters: a loaded model on the host, of either layout. Leaves: for a GPU the same with bitsandbytes' layers in place of
the language model's linear ones, which take their bits on the way to the card; for a CPU with torch's dynamic int8 in
both towers. Projector, embedding and head stay as they are. Source: transformers 5.23 integrations/bitsandbytes.py,
whose steps for a model that it loads itself the first are.
"""

import importlib.util
import warnings
from collections import Counter
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig, InternVLForConditionalGeneration

from vlm_crash.models.internvl import tower_of

KINDS = ("8bit", "4bit")
#: Of a CPU: int8 matrices, activations quantised as they come.
INT8 = "int8"


def check_load_in(load_in: str | None, has_adapters: bool = False) -> None:
    """ValueError where so many bits cannot be had here, or beside adapters."""
    if load_in is None:
        return
    if load_in not in (*KINDS, INT8):
        raise ValueError(
            f"load_in={load_in!r} is not one of {[*KINDS, INT8]}; set --model.load_in to one, or leave it out"
        )
    if has_adapters:
        raise ValueError(f"load_in={load_in!r} is for whole models; `export` one, or leave --model.load_in or lora out")
    if load_in == INT8:
        return
    if not torch.cuda.is_available():
        raise ValueError(
            f"load_in={load_in!r} needs a CUDA device, and there is none here; set --model.load_in int8, which is for "
            "CPUs, or leave it out"
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError(
            f"load_in={load_in!r} needs bitsandbytes, which is not installed: pip install 'vlm_crash[quantized]', or "
            "leave --model.load_in out"
        )


def check_stage(load_in: str | None, stage: str, device: torch.device) -> None:
    """ValueError where a model of few bits is to do anything but answer clips on a GPU."""
    if load_in is not None and stage != "predict":
        raise ValueError(
            f"load_in={load_in!r} is for predict alone: weights of so few bits cannot be trained, and scores are "
            "computed beside a loss in fp32; leave --model.load_in out"
        )
    if load_in == INT8 and device.type != "cpu":
        raise ValueError(f"load_in='int8' is for CPUs, and this run is on {device}; set --trainer.accelerator cpu")
    if load_in in KINDS and device.type != "cuda":
        raise ValueError(f"load_in={load_in!r} needs a GPU, and this run is on {device}; set --trainer.accelerator gpu")


def loaded_dtype(load_in: str | None, otherwise: torch.dtype) -> torch.dtype:
    """In what the weights are read before they take fewer bits."""
    return torch.float16 if load_in in KINDS else torch.float32 if load_in == INT8 else otherwise


def hold_in_fewer_bits(model: InternVLForConditionalGeneration, load_in: str) -> None:
    """Put other layers in place of linear ones.

    Args:
        model: in loaded_dtype, on the host.
        load_in: 8bit (LLM.int8) or 4bit (NF4, its scales quantised again, computed in fp16), which the language model's
            weights take on their way to a GPU; int8: both towers' at once.

    Raises:
        ValueError: processes share the model, so that its weights are not here.
    """
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ValueError(f"load_in={load_in!r} is for one device; leave --trainer.strategy or --model.load_in out")
    whole_sizes: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        whole_sizes[tower_of(name)] += parameter.numel()
    model.whole_sizes = dict(whole_sizes)  # type: ignore[assignment]  # what is logged as the model's parameters
    if load_in == INT8:
        _dynamic_int8(model)
        return
    import bitsandbytes
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear

    language = model.model.language_model
    old = {name: layer for name, layer in language.named_modules() if type(layer) is nn.Linear}
    replace_with_bnb_linear(language, [], settings_of(load_in))
    kind = bitsandbytes.nn.Int8Params if load_in == "8bit" else bitsandbytes.nn.Params4bit
    for name in list(old):
        layer: nn.Linear = old.pop(name)
        new: Any = language.get_submodule(name)
        options = {key: value for key, value in vars(new.weight).items() if key != "SCB"}
        new.weight = kind(layer.weight.detach().half().contiguous(), requires_grad=False, **options)
        if layer.bias is not None:
            new.bias = nn.Parameter(layer.bias.detach().half(), requires_grad=False)


def _dynamic_int8(model: InternVLForConditionalGeneration) -> None:
    with warnings.catch_warnings():
        # torch 2.14 says that these types will go; torchao, which is to take their place, is no part of the lock.
        warnings.filterwarnings("ignore", message=".*deprecated and will be removed.*")
        for name in ("vision_tower", "language_model"):
            tower = getattr(model.model, name)
            setattr(model.model, name, torch.ao.quantization.quantize_dynamic(tower, {nn.Linear}, torch.qint8))


def settings_of(load_in: str) -> BitsAndBytesConfig:
    """transformers' words for it; both kinds run on Turing (compute capability 7.5), which has no bfloat16."""
    if load_in == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float16,
    )  # fmt: skip
