"""What --data's options may be.

Enters: options as they were given. Leaves: a ValueError with the option, what it may be and what to do.
"""

from pathlib import Path

from vlm_crash.data.batching import BATCHING
from vlm_crash.data.splits import SPLITS

#: Words that an option may be.
WORDS = {"split": SPLITS, "batching": BATCHING, "on_bad_clip": ("raise", "skip")}


def check_words(**words: str) -> None:
    """ValueError for an option's word that is none of WORDS."""
    for name, word in words.items():
        if word not in WORDS[name]:
            raise ValueError(f"{name}={word!r} is not one of {list(WORDS[name])}; set --data.{name} to one of them")


def check_leasts(least: int, **values: float | None) -> None:
    """ValueError for an option's number below the least that it may be."""
    for name, value in values.items():
        if value is not None and not value >= least:  # nan is not
            raise ValueError(f"{name}={value} is below {least}; set --data.{name} to {least} or more")


def check_together(batching: str, pack_tokens: int | None, prompt: str | None, prompt_file: Path | None) -> None:
    """ValueError for options that leave each other without effect."""
    if pack_tokens is not None and batching != "packed":
        raise ValueError(f"pack_tokens={pack_tokens} has no effect with batching={batching!r}; leave it out")
    if prompt is not None and prompt_file is not None:
        raise ValueError("--data.prompt and --data.prompt_file are both given, and only one can be asked; drop one")
