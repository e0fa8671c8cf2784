"""The language model's matrices in 8 or 4 bits, by bitsandbytes: for answers on a card that has no room for fp16.

Enters: a loaded model on the host, of either layout. Leaves: the same with bitsandbytes' layers in place of the
language model's linear ones, which take their bits on the way to the GPU. Vision tower, projector, embedding and head
stay as they are. Source: transformers 5.23 integrations/bitsandbytes.py, whose steps for a model that it loads itself
these are.
"""

import importlib.util
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig, InternVLForConditionalGeneration

KINDS = ("8bit", "4bit")


def check_load_in(load_in: str | None, has_adapters: bool = False) -> None:
    """ValueError where so many bits cannot be had here, or beside adapters."""
    if load_in is None:
        return
    if load_in not in KINDS:
        raise ValueError(
            f"load_in={load_in!r} is not one of {list(KINDS)}; set --model.load_in to one, or leave it out"
        )
    if has_adapters:
        raise ValueError(f"load_in={load_in!r} is for whole models; `export` one, or leave --model.load_in or lora out")
    if not torch.cuda.is_available():
        raise ValueError(
            f"load_in={load_in!r} needs a CUDA device, and there is none here; leave --model.load_in out: a CPU "
            "answers in fp32"
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
    if load_in is not None and device.type != "cuda":
        raise ValueError(f"load_in={load_in!r} needs a GPU, and this run is on {device}; set --trainer.accelerator gpu")


def hold_in_fewer_bits(model: InternVLForConditionalGeneration, load_in: str) -> None:
    """Put bitsandbytes' layers in place of the language model's linear ones; the weights take their bits on a GPU.

    Args:
        model: in fp16, on the host.
        load_in: 8bit (LLM.int8) or 4bit (NF4, its scales quantised again, computed in fp16).

    Raises:
        ValueError: processes share the model, so that its weights are not here.
    """
    import bitsandbytes
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear

    language = model.model.language_model
    old = {name: layer for name, layer in language.named_modules() if type(layer) is nn.Linear}
    if any(layer.weight.is_meta for layer in old.values()):
        raise ValueError(f"load_in={load_in!r} is for one GPU; leave --trainer.strategy or --model.load_in out")
    replace_with_bnb_linear(language, [], settings_of(load_in))
    kind = bitsandbytes.nn.Int8Params if load_in == "8bit" else bitsandbytes.nn.Params4bit
    for name in list(old):
        layer: nn.Linear = old.pop(name)
        new: Any = language.get_submodule(name)
        options = {key: value for key, value in vars(new.weight).items() if key != "SCB"}
        new.weight = kind(layer.weight.detach().half().contiguous(), requires_grad=False, **options)
        if layer.bias is not None:
            new.bias = nn.Parameter(layer.bias.detach().half(), requires_grad=False)


def settings_of(load_in: str) -> BitsAndBytesConfig:
    """transformers' words for it; both kinds run on Turing (compute capability 7.5), which has no bfloat16."""
    if load_in == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float16,
    )  # fmt: skip
