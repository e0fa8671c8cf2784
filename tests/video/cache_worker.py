"""A process that reads clips through a cache that has too little room for them: `cache_worker FOLDER SEED`."""

import logging
import random
import sys
from pathlib import Path

from tests.video.conftest import frame_numbers
from vlm_crash.video.frame_cache import CacheSettings, FrameCache
from vlm_crash.video.frame_sampling import FrameSampling, middle_frame_indices
from vlm_crash.video.reader import read_frames


def main(folder: Path, seed: int) -> None:
    logging.basicConfig(level=logging.WARNING)
    cache = FrameCache(CacheSettings(folder / "cache", max_gib=3 * 45056 / 2**30, format="raw"))
    clips = {number: read_frames(folder / f"{number}.mp4", FrameSampling(4)) for number in range(4)}
    draw = random.Random(seed)
    for _ in range(60):
        number = draw.randrange(4)
        plain = clips[number]
        found = cache.read(folder / f"{number}.mp4", {"num_frames": 4}, 56, "auto", decode=lambda plain=plain: plain)
        assert frame_numbers(found.frames_FHWC) == middle_frame_indices(40 - number, 4)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
