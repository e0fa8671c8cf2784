"""What a checkpoint of LoRA says of itself: its settings, and beside which base it was trained.

Enters: settings, the base's folder and fingerprint. Leaves: plain values for a checkpoint; refusals of checkpoints that
do not fit a run. Invariant: adapters meet no other base than the one that they were trained beside.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vlm_crash.models.lora import FIXED, LoraSettings


def make_record(settings: LoraSettings, base: Path, weights: str, tensor: str) -> dict[str, Any]:
    """What a checkpoint says of its adapters, as plain values.

    Args:
        base: folder of the base.
        weights: its fingerprint.
        tensor: name of one of the trained tensors.
    """
    return {
        "settings": {**asdict(settings), "adapter": None},
        "base": {"path": str(base), "weights": weights},
        "tensor": tensor,
    }


def with_form(record: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """A record with the form of the model that the adapters make, from what its folder says (`vlm_crash` there)."""
    return {**record, "form": {name: settings.get(name) for name in ("schema", "terms")}}


def settings_of(record: Mapping[str, Any]) -> LoraSettings:
    """The settings that a checkpoint was trained with."""
    return LoraSettings(**record["settings"])


def check_settings(record: Mapping[str, Any], settings: LoraSettings, path: Any) -> None:
    """Refuse settings that a checkpoint was not trained with.

    Raises:
        ValueError: names each of them.
    """
    before, now = settings_of(record).fixed, settings.fixed
    other = [f"{name} {before[name]}, not {now[name]}" for name in FIXED if before[name] != now[name]]
    if other:
        raise ValueError(
            f"{path} was trained with lora.{', lora.'.join(other)}; set --model.lora as it was, or leave it out"
        )


def check_base(record: Mapping[str, Any], folder: Path | str, weights: str, path: Any) -> None:
    """Refuse adapters that were trained beside another base.

    Raises:
        ValueError: names both.
    """
    base = record["base"]
    if base["weights"] != weights:
        raise ValueError(
            f"{path} was trained beside the weights of {base['path']} ({base['weights'][:8]}), and {folder} has others "
            f"({weights[:8]}); set --model.path (for export --model) to that base"
        )


def check_lora(saved: Mapping[str, Any] | None, mine: Mapping[str, Any] | None, path: Any) -> None:
    """Refuse a checkpoint of other adapters, of a whole model where there are adapters, and the other way round.

    Args:
        saved: the checkpoint's record; None: it has none.
        mine: the model's.
        path: of the checkpoint.
    """
    if saved is None and mine is not None:
        raise ValueError(
            f"{path} is a checkpoint of a whole model, not of LoRA; leave out --model.lora, or begin anew beside it: "
            "set --model.path to an export of it, and leave out --ckpt_path"
        )
    if saved is not None and mine is None:
        raise ValueError(f"{path} is a checkpoint of LoRA; set --model.lora as it was trained: {saved['settings']}")
    if saved is not None and mine is not None:
        check_settings(saved, settings_of(mine), path)
        check_base(saved, mine["base"]["path"], mine["base"]["weights"], path)
