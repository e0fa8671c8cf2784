"""How frames are chosen, as the command line and a model's folder say it.

Enters: what a folder remembers, and what is given now. Leaves: the one FrameSampling of a run. Must hold: a rule
that is given is not mixed with the settings of the one that the model remembers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vlm_crash.video.frame_sampling import ONLY_UNDER, FrameSampling

#: Frames per clip of the old scripts.
DEFAULT_NUM_FRAMES = 32


@dataclass(frozen=True)
class FrameOptions:
    """Settings of a frame rule, and the part of each clip that it sees (docs/sampling.md).

    Args:
        fps: frames a second of frame_rule fps; num_frames is then the most of a clip.
        min_frames: fewest frames of frame_rule duration, as far as a clip has them; num_frames is the most. Unset: 8
            (or num_frames, where that is less).
        start_s: what is shown before this second of a clip is not looked at (0: from the beginning). Unset: what the
            model folder says.
        end_s: nor what is shown from this second on (.inf: to the end). Unset: what the model folder says.
    """

    fps: float | None = None
    min_frames: int | None = None
    start_s: float | None = None
    end_s: float | None = None

    @property
    def given(self) -> dict[str, Any]:
        """Those that are not left unset."""
        return {name: value for name, value in asdict(self).items() if value is not None}


#: None of them is given.
UNSET = FrameOptions()


def sampling_of(
    num_frames: int | None, rule: str | None, options: FrameOptions, remembered: Mapping[str, Any]
) -> FrameSampling:
    """The rule of a run: what is given goes before what the model's folder remembers.

    Args:
        remembered: as `to_remember` made it; empty: the folder says nothing. Its fewest frames are no more than are
            asked for now.

    Raises:
        ValueError: settings that cannot be, or have no effect.
    """
    known = {name: value for name, value in remembered.items() if value is not None}
    if rule is not None and rule != known.get("rule", "middle"):
        known = {name: value for name, value in known.items() if name not in ONLY_UNDER}
    given = {"num_frames": num_frames, "rule": rule, **options.given}
    settings = {**known, **{name: value for name, value in given.items() if value is not None}}
    settings.setdefault("num_frames", DEFAULT_NUM_FRAMES)
    if options.min_frames is None and 1 <= settings["num_frames"] < settings.get("min_frames", 0):
        settings["min_frames"] = settings["num_frames"]  # fewer are asked for than the folder's fewest: so many, then
    if settings.get("end_s") == float("inf"):  # the window that a folder remembers, taken back
        del settings["end_s"]
    return FrameSampling(**settings)


def to_remember(sampling: FrameSampling) -> dict[str, Any]:
    """What a model's folder keeps of a rule: num_frames, frame_rule, and as `frames` what else is set."""
    said = {name: value for name, value in sampling.to_json().items() if value is not None}
    num_frames, rule = said.pop("num_frames"), said.pop("rule")
    return {"num_frames": num_frames, "frame_rule": rule, "frames": said or None}
