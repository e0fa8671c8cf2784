"""Parsers: configs by name, and unknown keys answered with the nearest known one."""

import difflib
import re
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path

from jsonargparse import ArgumentError, ArgumentParser

_UNKNOWN = (
    re.compile(r"Unrecognized arguments: (?P<key>\S+)"),
    re.compile(r"Key ['\"](?P<key>[\w.]+)['\"] is not expected"),
    re.compile(r"[Oo]ption ['\"](?P<key>[\w.]+)['\"] is not accepted"),
    re.compile(r"No action for key ['\"](?P<key>[\w.]+)['\"]"),
    re.compile(r"Group '(?P<group>[\w.]+)' does not accept (?:nested key|option) '(?P<key>[\w.]+)'"),
    re.compile(r"Does not accept nested key '(?P<key>[\w.]+)'"),
)


def find_config(name: str) -> Path:
    """A config by path, else by name in ./configs, else among those that ship with the package.

    Raises:
        ValueError: there is none of that name; the nearest is named.
    """
    shipped = Path(str(files("vlm_crash") / "_configs"))
    places = [Path(name), Path("configs") / name, shipped / name, Path(__file__).parents[2] / "configs" / name]
    for place in places:
        if place.is_file():
            return place
    known = sorted({path.name for place in places[1:] for path in place.parent.glob("*.yaml")})
    close = difflib.get_close_matches(name, known, n=1)
    raise ValueError(
        f"there is no config {name}: not in the working folder, not in configs/; "
        + (f"did you mean {close[0]}? " if close else "")
        + f"shipped configs: {', '.join(known) or 'none'}"
    )


def resolve_configs(args: Sequence[str]) -> list[str]:
    """Replace the name after --config (or -c) by the path it stands for."""
    resolved: list[str] = []
    for arg in args:
        if resolved and resolved[-1] in ("--config", "-c"):
            resolved.append(str(find_config(arg)))
        elif arg.startswith("--config="):
            resolved.append(f"--config={find_config(arg.split('=', 1)[1])}")
        else:
            resolved.append(arg)
    return resolved


def known_keys(parser: ArgumentParser) -> list[str]:
    """Every option of a parser (and of its subcommands), without dashes."""
    keys: set[str] = set()
    for action in parser._actions:
        keys |= {option.lstrip("-") for option in action.option_strings if option.startswith("--")}
        for child in getattr(action, "_name_parser_map", {}).values():
            keys |= set(known_keys(child))
    return sorted(keys)


def explain(error: ArgumentError, keys: Iterable[str]) -> ValueError:
    """One message for a parser's complaint: the key, the nearest known one."""
    keys = list(keys)
    text = " ".join(str(error).split())
    for pattern in _UNKNOWN:
        match = pattern.search(text)
        if match:
            found = match.groupdict()
            key = found["key"].lstrip("-").split("=")[0]
            if found.get("group") and not key.startswith(found["group"]):
                key = f"{found['group']}.{key}"
            close = difflib.get_close_matches(key, keys, n=1, cutoff=0.4) or [
                known for known in keys if known.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]
            ]
            hint = f"did you mean {close[0]}?" if close else "--help lists the options"
            return ValueError(f"there is no option {key!r}; {hint}")
    return ValueError(text)
