"""Which prediction answers which truth: joined by event source and clip name, never by row number.

A clip name alone does not do: crash/1.mp4 and nearmiss/1.mp4 are two clips. Predictions carry the event of the folder
or CSV that they came from (`source_event`) and their path; the name alone is used only where it is in one truth. A CSV
that names clips by ids says "7.mp4" of what may be 7.avi: as in `prepare`, the only clip of that stem is meant, in
whatever case, however its accents are written, and also where the CSV has a path of Windows.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vlm_crash.data.annotations import sample_id
from vlm_crash.data.clip_names import composed, name_key
from vlm_crash.evaluation.loading import LoadedPrediction
from vlm_crash.schema.records import Annotation, VideoSample


@dataclass(frozen=True)
class JoinedClip:
    """A clip with a truth, and its prediction where there is one."""

    event: str
    truth: VideoSample
    annotation: Annotation
    loaded: LoadedPrediction | None


@dataclass(frozen=True)
class Joined:
    """All truths in their order, and the predictions of clips that have no truth."""

    clips: tuple[JoinedClip, ...]
    without_truth: tuple[LoadedPrediction, ...]


def join(
    predictions: Sequence[LoadedPrediction], truths: Sequence[VideoSample], only_predicted: bool = False
) -> Joined:
    """Pair predictions with truths.

    Args:
        predictions: as loaded; each clip once.
        truths: samples with event and annotation.
        only_predicted: leave out truths without any prediction (a failed one is a prediction) instead of counting them
            as wrong.

    Raises:
        ValueError: a prediction fits two truths, or two predictions fit one.
    """
    by_name: dict[str, list[VideoSample]] = defaultdict(list)
    for sample in truths:
        by_name[_parts(sample.video).name].append(sample)
    answered: dict[int, LoadedPrediction] = {}
    unmatched, problems = [], []
    for loaded in predictions:
        matches = _matches(loaded, by_name[_parts(loaded.prediction.video).name])
        if len(matches) > 1:
            problems.append(_ambiguous(loaded, matches))
        elif not matches:
            unmatched.append(loaded)
        elif id(matches[0]) in answered:
            other = answered[id(matches[0])]
            problems.append(
                f"{matches[0].event}/{matches[0].video} is predicted twice: {other.where} and {loaded.where}"
            )
        else:
            answered[id(matches[0])] = loaded
    if problems:
        raise ValueError("predictions and truth cannot be joined:\n  " + "\n  ".join(problems[:20]))
    without_truth = _join_by_stem(unmatched, truths, answered)
    clips = tuple(
        JoinedClip(sample.event, sample, sample.annotation, answered.get(id(sample)))
        for sample in truths
        if sample.event is not None and sample.annotation is not None and (not only_predicted or id(sample) in answered)
    )
    return Joined(clips, tuple(without_truth))


def _join_by_stem(
    predictions: Sequence[LoadedPrediction], truths: Sequence[VideoSample], answered: dict[int, LoadedPrediction]
) -> list[LoadedPrediction]:
    """Give "7.avi" to the unanswered "7.mp4", and "A.mp4" to "a.MP4", where only these two can be meant.

    Returns:
        The predictions that are left: they have no truth.
    """
    by_key: dict[str, list[VideoSample]] = defaultdict(list)
    for sample in truths:
        if id(sample) not in answered:
            name = _parts(sample.video)
            for part in (name.name, name.stem) if name.suffix == ".mp4" else (name.name,):
                by_key[name_key(part)].append(sample)
    found = []
    for loaded in predictions:
        name = _parts(loaded.prediction.video)
        same = by_key.get(name_key(name.name)) or by_key.get(name_key(name.stem), [])
        found.append(_matches(loaded, [s for s in same if _parts(s.video).stem == name.stem] or same))
    wanted = Counter(id(sample) for matches in found for sample in matches)
    without_truth = []
    for loaded, matches in zip(predictions, found, strict=True):
        if len(matches) == 1 and wanted[id(matches[0])] == 1:
            answered[id(matches[0])] = loaded
        else:
            without_truth.append(loaded)
    return without_truth


def _matches(loaded: LoadedPrediction, same_name: Sequence[VideoSample]) -> list[VideoSample]:
    """The truths that a prediction may answer, narrowed by event source, then full name, then path."""
    clip, source, name = loaded.prediction, loaded.prediction.source_event, str(_parts(loaded.prediction.video))
    # A clip whose event was corrected since it was predicted keeps the id of the event that it had.
    found = [s for s in same_name if source is None or s.event == source or _slashed(s.id) == sample_id(source, name)]
    exact = [s for s in found if s.video == clip.video] or [s for s in found if str(_parts(s.video)) == name]
    # "a/1.mp4" is not "b/1.mp4"; a bare "1.mp4" on one side may be either.
    moved = [s for s in found if source is not None and s.event != source]
    # A corrected clip's name leads out of its new event's folder: no other clip's name is short for it.
    plain = [s for s in found if not s.video.startswith("../") or source is None]
    found = moved or exact or [s for s in plain if "/" not in str(_parts(s.video)) or "/" not in name]
    if len(found) > 1 and clip.path:
        found = [s for s in found if _same_file(Path(clip.path), s.path)] or found
    return found


def _parts(video: str) -> PurePosixPath:
    """The name of a clip, written in one way."""
    return PurePosixPath(_slashed(video))


def _slashed(name: str) -> str:
    return composed(name.replace("\\", "/"))


def _same_file(left: Path, right: Path) -> bool:
    return left == right or left.resolve() == right.resolve()


def _ambiguous(loaded: LoadedPrediction, matches: Sequence[VideoSample]) -> str:
    where = ", ".join(f"{sample.event}/{sample.video}" for sample in matches)
    return (
        f"{loaded.prediction.video} ({loaded.where}) fits the truths {where}. Predict each event's folder or CSV by "
        'itself, so that "source_event" is set, or evaluate against one event\'s truth'
    )
