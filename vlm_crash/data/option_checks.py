"""What the data's options may be; another value is a ValueError that says what is allowed."""

from vlm_crash.data.batching import BATCHING
from vlm_crash.data.splits import SPLITS

#: Words that an option may be.
CHOICES = {"split": SPLITS, "batching": BATCHING, "on_bad_clip": ("raise", "skip")}


def check_choices(**words: str) -> None:
    """ValueError for an option's word that is none of CHOICES."""
    for name, word in words.items():
        if word not in CHOICES[name]:
            raise ValueError(f"{name}={word!r} is not one of {list(CHOICES[name])}; set --data.{name} to one of them")


def check_leasts(least: int, **values: float | None) -> None:
    """ValueError for an option's number below the least that it may be."""
    for name, value in values.items():
        if value is not None and not value >= least:  # nan is not
            raise ValueError(f"{name}={value} is below {least}; set --data.{name} to {least} or more")
