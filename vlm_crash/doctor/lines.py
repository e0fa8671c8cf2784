"""One finding of the doctor, for a person and for programs."""

from dataclasses import asdict, dataclass
from typing import Any

OK, WARNING, PROBLEM, UNTRIED = "ok", "warning", "problem", "not tried"
STATUSES = (OK, WARNING, PROBLEM, UNTRIED)


@dataclass(frozen=True)
class Line:
    """What was found of one thing.

    Args:
        name: the thing, short.
        status: ok; warning (works otherwise than one may think); problem (does not work, and is needed); not tried.
        text: what was found.
        remedy: what to do; empty where there is nothing to do.
    """

    name: str
    status: str
    text: str
    remedy: str = ""

    def __post_init__(self) -> None:
        assert self.status in STATUSES, self.status

    def __str__(self) -> str:
        """
        >>> print(Line("decoders", "problem", "none works", "install av"))
        problem    decoders: none works
                   -> install av
        """
        remedy = f"\n{'':11}-> {self.remedy}" if self.remedy else ""
        return f"{self.status:<10} {self.name}: {self.text}{remedy}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
