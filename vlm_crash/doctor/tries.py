"""What is tried in a process of its own: `python -m vlm_crash.doctor.tries torch|decoders|model`.

Enters: a word. Leaves: findings on stdout, as vlm_crash.doctor.saying has them.
"""

import json
import math
import os
import sys
from collections.abc import Callable
from typing import Any

from vlm_crash.doctor.clip_tries import try_decoders
from vlm_crash.doctor.lines import OK, PROBLEM, Line
from vlm_crash.doctor.needs import TRAINED
from vlm_crash.doctor.saying import first_line, say
from vlm_crash.doctor.torch_tries import try_torch


def count_parameters(folder: str, lora: str = "null") -> None:
    """How many parameters each tower of a model folder has, from its shapes alone; and how many LoRA trains.

    Args:
        lora: settings of LoRA as JSON; null: none.
    """
    say({"trying": "the model's shapes"})
    try:
        from vlm_crash.models.checkpoints import meta_model
        from vlm_crash.models.folder import image_size, read_config
        from vlm_crash.models.internvl import tower_of

        config = read_config(folder)
        counts: dict[str, int] = {}
        for name, parameter in meta_model(config).named_parameters():
            counts[tower_of(name)] = counts.get(tower_of(name), 0) + parameter.numel()
        settings = json.loads(lora)
        trained = {} if settings is None else _trained(config, settings)
    except (ImportError, ValueError, TypeError, OSError, RuntimeError, KeyError) as error:
        say(Line("model", PROBLEM, first_line(error), "set --model.path to a model folder"))
        return
    say({"fact": "model", "parameters": counts | trained, "side": image_size(config)[0]})
    text = f"{sum(counts.values()):,} parameters ({', '.join(f'{k} {v:,}' for k, v in counts.items())})"
    text += "".join(f"; LoRA trains {number:,} beside or of them" for number in trained.values())
    say(Line("model", OK, text))


def _trained(config: Any, settings: dict[str, Any]) -> dict[str, int]:
    from vlm_crash.models.lora import LoraSettings
    from vlm_crash.models.lora_layers import trained_shapes

    known = {name: value for name, value in settings.items() if name != "adapter"}
    return {TRAINED: sum(math.prod(shape) for shape in trained_shapes(config, LoraSettings(**known)).values())}


def main() -> None:
    what, *arguments = sys.argv[1:]
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    actions: dict[str, Callable[..., None]] = {
        "torch": try_torch, "decoders": try_decoders, "model": count_parameters,
    }  # fmt: skip
    actions[what](*arguments)


if __name__ == "__main__":
    main()
