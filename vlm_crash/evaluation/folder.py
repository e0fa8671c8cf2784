"""What `evaluate` wrote -> the parts that a comparison needs, and nothing that another version has written."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Key = tuple[str, str]


@dataclass(frozen=True)
class EvaluationFolder:
    """An evaluation that is on disk.

    Attributes:
        settings: of metrics.json.
        titles: event -> what people call it.
        fields: event -> field -> kind.
        clips: (event, video) -> the clip's entry in records.json, in their order.
    """

    path: Path
    settings: Mapping[str, Any]
    titles: Mapping[str, str]
    fields: Mapping[str, Mapping[str, str]]
    clips: Mapping[Key, Mapping[str, Any]]

    @classmethod
    def read(cls, path: Path) -> EvaluationFolder:
        """Read a folder.

        Raises:
            FileNotFoundError: metrics.json or records.json is not there.
            ValueError: they are not what this version of `evaluate` writes.
        """
        metrics, records = (_object(Path(path) / name) for name in ("metrics.json", "records.json"))
        try:
            fields = {
                event: {name: field["kind"] for name, field in metrics[event]["fields"].items()}
                for event in records["schema"]["events"]
            }
            clips = {(clip["event"], clip["video"]): clip for clip in records["clips"]}
            for (event, _), clip in clips.items():
                for name in fields[event]:
                    if not {"truth", "score", "verdict"} <= clip["fields"][name].keys():
                        raise KeyError(name)
                    _check_score(Path(path) / "records.json", clip, name)
            titles = {event: entry["title"] for event, entry in records["schema"]["events"].items()}
            return cls(Path(path), metrics["settings"], titles, fields, clips)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path} is not an evaluation of this version ({error!r}); run `evaluate` again"
            ) from error


def _check_score(records: Path, clip: Mapping[str, Any], name: str) -> None:
    score = clip["fields"][name]["score"]
    is_number = isinstance(score, int | float) and not isinstance(score, bool) and math.isfinite(score)
    if score is not None and not is_number:
        raise ValueError(
            f"{records}: {clip['event']}/{clip['video']} {name}: score is {score!r}, neither a number nor null; "
            "run `evaluate` again"
        )


def _object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; give a folder that `evaluate` wrote")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # also UnicodeDecodeError
        raise ValueError(f"{path} is not JSON ({error}); run `evaluate` again") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path} is not what `evaluate` writes; run `evaluate` again")
    return data
