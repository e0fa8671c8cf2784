"""Whether the frames of a run's clips fit on the disk, said before it starts.

Enters: a recipe with a cache, and the samples of a stage. Leaves: a line of the log with what each format would need; a
ValueError where it cannot fit.
Must hold: the sizes come from some of the run's own clips, in the format as it is written; a quarantined clip is
neither opened nor counted.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from lightning import Trainer
from lightning.pytorch.utilities import rank_zero_only

from vlm_crash.data.clip_store import ClipStore
from vlm_crash.data.dataset import SampleRecipe
from vlm_crash.data.quarantine import in_use
from vlm_crash.schema.records import VideoSample
from vlm_crash.video.container import UnreadableClipError
from vlm_crash.video.frame_formats import FRAME_FORMATS
from vlm_crash.video.image_transform import to_be_resized

log = logging.getLogger(__name__)

GIB = 2**30
#: Clips, and frames of each, by which the size of all is told.
NUM_CLIPS, NUM_FRAMES = 3, 4
#: Clips that are tried: some may be unreadable.
_NUM_TRIED = 12


def check_room(recipe: SampleRecipe | None, samples: Mapping[str, Sequence[VideoSample]]) -> None:
    """Say what the cache needs for the clips of all splits of a stage; nothing where there is no cache.

    Raises:
        ValueError: it does not fit into the limit or onto the disk.
    """
    if recipe is None or recipe.cache is None:
        return
    samples = {name: _read(found) for name, found in samples.items()}
    cache, num_clips = recipe.cache, sum(map(len, samples.values()))
    if not num_clips:
        return
    sizes = [_sizes(recipe, frames_FHWC) for frames_FHWC in _some(recipe, samples)]
    if not sizes:
        log.warning("the frame cache: none of the clips that were tried can be read, so its size is not known")
        return
    need = {name: num_clips * float(np.mean([size[name] for size in sizes])) for name in FRAME_FORMATS}
    chosen, settings = cache.settings.format, cache.settings
    side = f"{recipe.image_size} x {recipe.image_size}"
    what = f"{num_clips:,} clips x {recipe.sampling.num_frames} frames x {side}"
    others = ", ".join(f"{name} {size / GIB:.3g}" for name, size in need.items())
    room, free = cache.files.room(), cache.files.free()
    there = (
        f"{free / GIB:.3g} GiB of the disk of {settings.folder} can be filled, and {cache.files.size() / GIB:.3g} GiB "
        f"are the cache's already; --data.cache.max_gib is {settings.max_gib:g}"
    )
    if need[chosen] > room:
        raise ValueError(
            f"the frame cache has no room: {what} take about {need[chosen] / GIB:.3g} GiB as {chosen} (GiB by format: "
            f"{others}); {there}. Set --data.cache.format, --data.cache.max_gib or --data.cache.folder so that they "
            "fit, take fewer frames, or leave --data.cache out"
        )
    _say(f"frame cache: {what} take about {need[chosen] / GIB:.3g} GiB as {chosen} (GiB by format: {others}); {there}")


def _read(samples: Sequence[VideoSample]) -> Sequence[VideoSample]:
    """Those whose clips are opened: a quarantined one is answered without; of loose clips (millions) none is."""
    return samples if isinstance(samples, ClipStore) else in_use(samples)


def check_room_once(
    trainer: Trainer | None, recipe: SampleRecipe | None, samples: Mapping[str, Sequence[VideoSample]]
) -> None:
    """The same on one process of each machine (the folder may be a machine's own); all hear of what it finds.

    Raises:
        ValueError: it does not fit here or on another machine.
    """
    if recipe is None or recipe.cache is None:
        return
    message = ""
    if trainer is None or trainer.local_rank == 0:
        try:
            check_room(recipe, samples)
        except ValueError as error:
            message = str(error)
    if trainer is not None and trainer.world_size > 1:
        fits = trainer.strategy.reduce_boolean_decision(not message)
        message = message or ("" if fits else "the frame cache has no room; another process says how much it needs")
    if message:
        raise ValueError(message)


def _some(recipe: SampleRecipe, samples: Mapping[str, Sequence[VideoSample]]) -> Iterator[np.ndarray]:
    """Frames of a few clips, spread over all; nothing is written before it is known to fit."""
    found = 0
    longest = max(samples.values(), key=len)
    for index in np.unique(np.linspace(0, len(longest) - 1, min(_NUM_TRIED, len(longest))).astype(int)):
        try:
            frames_FHWC = recipe.decoded(longest[int(index)].path, to_keep=True).frames_FHWC
        except UnreadableClipError:  # it is named when it is its turn
            continue
        yield frames_FHWC
        found += 1
        if found == NUM_CLIPS:
            return


def _sizes(recipe: SampleRecipe, frames_FHWC: np.ndarray) -> dict[str, float]:
    """Bytes of the clip by format, by some of its frames."""
    some = np.unique(np.linspace(0, len(frames_FHWC) - 1, NUM_FRAMES).astype(int))
    small_FHWC = to_be_resized(frames_FHWC[some], recipe.image_size)
    share = len(frames_FHWC) / len(some)
    return {name: share * sum(map(len, kept.encode(small_FHWC))) for name, kept in FRAME_FORMATS.items()}


@rank_zero_only
def _say(text: str) -> None:
    log.info("%s", text)
