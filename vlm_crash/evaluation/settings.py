"""How an evaluation is made: its settings, checked before a file is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MIN_DRAWS = 100


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of `evaluate`; each is an option of the command.

    Attributes:
        embedder: model of the text scores: "minilm", a folder or a name; None turns them off (null, with the reason).
        split: only the clips of this split of the prepared dataset.
        only_predicted: score only truths that have a prediction (failed ones included).
        seed: of the bootstrap.
        num_draws: resamples of the bootstrap.
        group_column: column of the truth whose equal values are drawn together.
        blind: predictions of the same model on black frames, as a baseline.
        calibrate_on: predictions of the same model for other clips of the truth (the val split), on which temperatures
            and thresholds are fitted.
        annotators: two people's annotations of the same clips, whose agreement stands beside the scores.
        wanted_accuracy: share of right answers that those accepted without a look should reach.

    Raises:
        ValueError: a value that cannot be.
    """

    embedder: str | None = "minilm"
    split: str | None = None
    only_predicted: bool = False
    seed: int = 0
    num_draws: int = 2000
    group_column: str | None = None
    blind: tuple[Path, ...] = ()
    calibrate_on: tuple[Path, ...] = ()
    annotators: tuple[Path, ...] = ()
    wanted_accuracy: float = 0.95

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} is below 0; set --seed to 0 or more")
        if self.num_draws < MIN_DRAWS:
            raise ValueError(
                f"num_draws={self.num_draws} is too few for an interval; set --num_draws to {MIN_DRAWS} or more"
            )
        if not 0 < self.wanted_accuracy <= 1:
            raise ValueError(f"wanted_accuracy={self.wanted_accuracy} is not a share; set --wanted_accuracy in (0, 1]")
