"""The splits.json of an earlier run: its clips stay where they are, and its settings hold where none are given.

Enters: the file, and the settings as they were given. Leaves: the settings that hold, and splits by id and by content.
Must hold: a given setting that is not the file's is refused, for else it would be ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm_crash.data.prepared import checked_assign, read_json
from vlm_crash.data.splits import DEFAULT_FRACTIONS, check_fractions

#: Stands for the column where only clips of the same content are kept together.
CONTENT = "clip content"


@dataclass(frozen=True)
class FrozenSplits:
    """Settings of the splits, and the clips that have one already.

    Attributes:
        group_by: the CSV column, or CONTENT.
        assign: id -> split.
        of_content: hash of a clip -> split.
    """

    seed: int
    fractions: tuple[float, ...]
    group_by: str
    assign: Mapping[str, str]
    of_content: Mapping[str, str]

    @property
    def group_column(self) -> str | None:
        return None if self.group_by == CONTENT else self.group_by

    @property
    def settings(self) -> dict[str, Any]:
        """As splits.json has them."""
        return {"seed": self.seed, "fractions": list(self.fractions), "group_by": self.group_by}


def frozen_splits(
    path: Path, seed: int | None, fractions: Sequence[float] | None, group_by: str | None
) -> FrozenSplits:
    """What holds for a run of `prepare`.

    Args:
        path: splits.json, which need not be there.
        seed, fractions, group_by: as given; None: as the file says, else 0, DEFAULT_FRACTIONS and CONTENT.

    Raises:
        ValueError: a given setting contradicts the file, or is none; the file is no splits.json.
    """
    earlier = read_json(path, None)
    assign, of_content = {}, {}
    if earlier is not None:
        assign, of_content = checked_assign(path, earlier), checked_assign(path, earlier, "assign_content")
    known = earlier or {}
    given = {"seed": seed, "fractions": None if fractions is None else list(fractions), "group_by": group_by}
    defaults = {"seed": 0, "fractions": list(DEFAULT_FRACTIONS), "group_by": CONTENT}
    options = {"group_by": "group_column"}
    for name, value in given.items():
        if value is not None and known.get(name, value) != value:
            option = options.get(name, name)
            raise ValueError(
                f"{option}={value} contradicts {path}, which was made with {option}={known[name]} and is frozen; "
                f"leave out --{option}, give the same or another output folder, or delete that file"
            )
    held = {name: known.get(name, defaults[name]) if value is None else value for name, value in given.items()}
    if not isinstance(held["fractions"], list) or not isinstance(held["seed"], int):
        raise ValueError(f"{path}: seed and fractions must be a number and three; restore or delete the file")
    check_fractions(held["fractions"])
    return FrozenSplits(held["seed"], tuple(held["fractions"]), str(held["group_by"]), assign, of_content)
