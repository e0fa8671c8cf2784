"""Configs of fit, read without LightningCLI, which takes longer to load than a plan to compute.

Enters: YAML files. Leaves: one nested dict. Invariant: a key that fit does not have is refused, as fit would.
"""

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from vlm_crash.schema.wording import closest


def fit_options() -> list[str]:
    """Names of fit's options, from the help text that ships with the package."""
    text = (files("vlm_crash") / "cli" / "help" / "fit.txt").read_text(encoding="utf-8")
    return sorted(set(re.findall(r"--([a-z][\w.]*)", text)))


def read_config(path: Path) -> dict[str, Any]:
    """A config of fit.

    Raises:
        ValueError: no YAML, or a key that fit does not have.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"Problems parsing config {path}: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no config: it has no keys such as model, data and trainer")
    known = fit_options()
    for key, value in content.items():
        for name in [f"{key}.{inner}" for inner in value] if key in ("model", "data", "trainer") and value else [key]:
            if name not in known and not name.startswith("model.lora"):
                meant = closest(name, known)
                raise ValueError(
                    f"{path}: there is no option {name!r} in fit" + (f"; did you mean {meant}?" if meant else "")
                )
    return content


def merge(base: dict[str, Any], more: dict[str, Any]) -> None:
    """Put the keys of one config over those of another; a strategy of another class takes the old one's options along
    no more."""
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict) and not _is_another_class(base[key], value):
            merge(base[key], value)
        else:
            base[key] = value


def _is_another_class(base: dict[str, Any], more: dict[str, Any]) -> bool:
    return "class_path" in more and more["class_path"] != base.get("class_path")


def put(config: dict[str, Any], name: str, value: Any) -> None:
    """Set one option, by its name with dots; options of the strategy are its init_args."""
    *path, last = name.split(".")
    if path == ["trainer", "strategy"]:
        trainer = config.setdefault("trainer", {})
        strategy = trainer.get("strategy")
        if isinstance(strategy, str) and "." in strategy:
            strategy = trainer["strategy"] = {"class_path": strategy}
        if not isinstance(strategy, dict):
            raise ValueError(
                f"--{name} is an option of a strategy by class, and trainer.strategy is {strategy!r}; "
                "give --trainer.strategy vlm_crash.parallel.FSDPStrategy, too"
            )
        strategy["init_args"] = {**(strategy.get("init_args") or {}), last: value}
        return
    for key in path:
        if not isinstance(config.get(key), dict):
            config[key] = {}
        config = config[key]
    if name == "trainer.strategy" and isinstance(config.get(last), dict) and config[last].get("class_path") == value:
        return
    config[last] = value
