"""Whether a run has the clips of the run that it goes on with.

Enters: the clips of a run in their order, and the place at which another one was stopped. Leaves: how many of them that
one has seen. Must hold: the order of an epoch is one of places in a list, so inside an epoch it is gone on with for the
very same list alone; what is drawn for a clip depends on no other clip.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

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


def _bytes(sample: VideoSample) -> bytes:
    return sample.id.encode("utf-8", "surrogatepass")
