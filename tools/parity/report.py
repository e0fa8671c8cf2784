"""Differences from the goldens, and the bars that they are held to.

Enters: what vlm_crash makes and what the original code made. Leaves: the largest difference of each kind by row, and
what is not met, in words.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

# Largest difference that is met, by kind; "ids" are whole numbers, of which none may differ.
BARS = {
    "vit": 1e-5,
    "merged": 1e-5,
    "visual": 1e-5,
    "logits": 1e-4,
    "logsumexp": 1e-4,
    "loss": 1e-5,
    "padding": 1e-4,
    "sdpa-eager": 1e-4,
    "ids": 0.0,
    "tome fp32": 1e-5,
    "tome fp16": 2**-10,  # a rounding of the last digit, of numbers from 1 to 2
    "tome bf16": 2**-7,
}


@dataclass
class Report:
    """Differences by row and kind, and what is not met, in words."""

    rows: dict[str, dict[str, float]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, row: str, kind: str, what: str, difference: float) -> None:
        """Keep a difference; it is a problem above its bar, and where it is no number."""
        difference = math.inf if math.isnan(difference) else difference
        kept = self.rows.setdefault(row, {})
        kept[kind] = max(kept.get(kind, 0.0), difference)
        if difference > BARS[kind]:
            self.problems.append(f"{row}: {what} differs by {difference:.3g}, more than {BARS[kind]:.3g}")

    def close(self, row: str, kind: str, what: str, got: Tensor, want: Tensor) -> None:
        """Compare numbers: the difference is the largest of all places."""
        if self._same_shape(row, what, got, want):
            self.add(row, kind, what, (got.float() - want.float()).abs().max().item())

    def equal(self, row: str, what: str, got: Any, want: Any) -> None:
        """Compare whole numbers: the difference is how many are not equal."""
        got, want = torch.as_tensor(got), torch.as_tensor(want)
        if self._same_shape(row, what, got, want):
            self.add(row, "ids", what, float((got != want).sum()))

    def _same_shape(self, row: str, what: str, got: Tensor, want: Tensor) -> bool:
        if got.shape != want.shape:
            self.problems.append(f"{row}: {what} has shape {tuple(got.shape)}, the golden {tuple(want.shape)}")
        return got.shape == want.shape

    def load(self, row: str, file: Path) -> dict[str, Tensor]:
        """Tensors of a file; where it cannot be read that is a problem, and there are none."""
        try:
            return load_file(file)
        except (OSError, SafetensorError) as error:
            self.problems.append(f"{row}: {file.name} cannot be read ({error})")
            return {}

    def table(self) -> str:
        """Rows of the largest differences, the largest of all, and the bars."""
        kinds = [kind for kind in BARS if any(kind in row for row in self.rows.values())]
        largest = {kind: max(row.get(kind, 0.0) for row in self.rows.values()) for kind in kinds}
        rows: Mapping[str, Mapping[str, float]] = {"": {}, **self.rows, "largest": largest, "bar": BARS}
        width = max(map(len, rows))
        lines = [f"{'':{width}}" + "".join(f"{kind:>11}" for kind in kinds)]
        for name, row in list(rows.items())[1:]:
            shown = [f"{row[kind]:.{0 if kind == 'ids' else 1}{'f' if kind == 'ids' else 'e'}}" if kind in row else ""
                     for kind in kinds]  # fmt: skip
            lines.append(f"{name:{width}}" + "".join(f"{cell:>11}" for cell in shown))
        return "\n".join(lines)
