"""What is tried in a process of its own: `python -m vlm_crash.doctor.tries torch|decoders|model`.

Enters: a word. Leaves: findings on stdout, as vlm_crash.doctor.saying has them.
"""

import os
import sys
from collections.abc import Callable

from vlm_crash.doctor.clip_tries import try_decoders
from vlm_crash.doctor.lines import OK, PROBLEM, Line
from vlm_crash.doctor.saying import first_line, say
from vlm_crash.doctor.torch_tries import try_torch


def count_parameters(folder: str) -> None:
    """How many parameters each tower of a model folder has, from its shapes alone."""
    say({"trying": "the model's shapes"})
    try:
        from vlm_crash.models.checkpoints import meta_model
        from vlm_crash.models.folder import image_size, read_config
        from vlm_crash.models.internvl import tower_of

        config = read_config(folder)
        counts: dict[str, int] = {}
        for name, parameter in meta_model(config).named_parameters():
            counts[tower_of(name)] = counts.get(tower_of(name), 0) + parameter.numel()
    except (ImportError, ValueError, OSError, RuntimeError, KeyError) as error:
        say(Line("model", PROBLEM, first_line(error), "set --model.path to a model folder"))
        return
    say({"fact": "model", "parameters": counts, "side": image_size(config)[0]})
    say(
        Line("model", OK, f"{sum(counts.values()):,} parameters ({', '.join(f'{k} {v:,}' for k, v in counts.items())})")
    )


def main() -> None:
    what, *arguments = sys.argv[1:]
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    actions: dict[str, Callable[..., None]] = {
        "torch": try_torch, "decoders": try_decoders, "model": count_parameters,
    }  # fmt: skip
    actions[what](*arguments)


if __name__ == "__main__":
    main()
