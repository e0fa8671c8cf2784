"""--model.lora beside --ckpt_path and the command: a checkpoint brings its LoRA along; untrained adapters only train.

Enters: the section `model` of a run, its checkpoint. Leaves: the section with the LoRA that is to act, or a ValueError.
"""

import logging
from collections.abc import Iterable

from jsonargparse import Namespace

from vlm_crash.models.adapters import Adapters
from vlm_crash.models.lora import LORA, LoraSettings
from vlm_crash.models.lora_record import check_lora, check_settings
from vlm_crash.parallel.checkpoint import Stored

log = logging.getLogger(__name__)


def settle(command: str, args: Iterable[str], model: Namespace, stored: Stored | None) -> None:
    """Put the LoRA of a checkpoint into a section `model`; drop one of a config that cannot act.

    Raises:
        ValueError: the two contradict; a command that does not train is asked for untrained adapters.
    """
    given = model.get("lora")
    record = stored.rest.get(LORA) if stored else None
    if stored is not None and record is not None:
        if given is None:
            model["lora"] = Namespace(**record["settings"])
            log.info("LoRA as in %s: %s", stored.path, record["settings"])
        else:
            check_settings(record, LoraSettings(**vars(given)), stored.path)
            given["adapter"] = None  # the checkpoint has gone on from it
    elif given is not None and stored is None and command != "fit" and given.get("adapter") is None:
        remedy = "give --ckpt_path of a LoRA run or --model.lora.adapter, or leave out --model.lora"
        if any(arg.startswith("--model.lora") for arg in args):
            raise ValueError(f"{command} does nothing with adapters that were not trained; {remedy}")
        log.warning("without effect in %s, and set by the config: model.lora (%s)", command, remedy)
        model["lora"] = None


def check(stored: Stored, adapters: Adapters | None) -> None:
    """Before anything is written: the checkpoint's adapters and base are the model's.

    Raises:
        ValueError: they are not, or one of the two has none.
    """
    check_lora(stored.rest.get(LORA), adapters.record if adapters else None, stored.path)
