"""Whether a run has the clips of the run that it goes on with, and its processes have the same.

Enters: the clips of a run in their order, the other processes, the place at which another run was stopped. Leaves: how
many of the clips that one has seen. Must hold: the order of an epoch is one of places in a list, so processes share it,
and it is gone on with inside an epoch, for the very same list alone; what is drawn for a clip depends on no other clip.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch.strategies import Strategy

from vlm_crash.schema.records import VideoSample


def clip_number(sample: VideoSample) -> int:
    """A number of the clip's own, from its id: what is drawn by it stays, whatever other clips come or go."""
    return int.from_bytes(hashlib.sha256(_bytes(sample)).digest()[:8])


def digest_of(samples: Sequence[VideoSample]) -> str:
    """What tells one list of clips from another: their ids in their order."""
    found = hashlib.sha256()
    for sample in samples:
        found.update(hashlib.sha256(_bytes(sample)).digest())
    return found.hexdigest()


def record_of(samples: Sequence[VideoSample]) -> dict[str, Any]:
    """What a checkpoint keeps of the training clips."""
    return {"num": len(samples), "digest": digest_of(samples)}


def clips_seen(place: Mapping[str, Any], samples: Sequence[VideoSample]) -> int:
    """Clips of the epoch that were seen before the run was stopped; all of now where it was stopped at its end.

    Args:
        place: in the epoch, as a checkpoint has it; one without `record_of` is believed.
        samples: the training clips of now.

    Raises:
        ValueError: the run was stopped inside an epoch of other clips: nobody could say which of now it has seen.
    """
    seen: int = place["clips"]
    before = place.get("training_clips")
    if before is None or seen == 0:
        return seen
    if seen >= before["num"]:
        return len(samples)
    if before != record_of(samples):
        now = f"there are {len(samples):,}" if before["num"] != len(samples) else "they are other ones"
        raise ValueError(
            f"the run was stopped inside an epoch of {before['num']:,} training clips, and now {now}: its order is one "
            "of those clips, and some would be seen twice and some never; bring the dataset and its clips.csv back as "
            "they were to go on, or give a checkpoint of the end of an epoch"
        )
    return seen


def check_same_everywhere(splits: Mapping[str, Sequence[VideoSample]], strategy: Strategy) -> None:
    """ValueError, on all processes, where they do not have the same clips in the same order; all must call.

    Each finds its clips by itself, on its own disk, and by time stamps that a network disk may round.
    """
    own = {name: record_of(samples) for name, samples in splits.items()}
    first = strategy.broadcast(own)
    if strategy.reduce_boolean_decision(own == first, all=True):
        return
    said = ", ".join(f"{name}: {record['num']:,}" for name, record in own.items())
    differ = [name for name, record in own.items() if record != first.get(name)]
    where = (
        f"the first process has others of {', '.join(differ)} ({', '.join(str(first[name]['num']) for name in differ)})"
        if differ else "the first process has the same, and another one has not"
    )  # fmt: skip
    raise ValueError(
        f"the processes do not have the same clips: this one has {said}; {where}. Give all machines the same dataset, "
        "clips with the same time stamps, and the same clips.csv (or run `check` again)"
    )


def _bytes(sample: VideoSample) -> bytes:
    return sample.id.encode("utf-8", "surrogatepass")
