"""The same clip twice: by the bytes of its file, by what its frames show, and by their mirror image.

Enters: samples with their split. Leaves: pairs, and what could not be looked at, by name. Must hold: each file is read
in a process that may die of it; what was read once is kept beside the report, by content, and not read again.
"""

from __future__ import annotations

import json
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import IO, Any

import numpy as np

from vlm_crash.data.audit_findings import Finding, Severity, some
from vlm_crash.data.near_copies import is_enough, near_copies
from vlm_crash.schema.records import VideoSample
from vlm_crash.video.container import UnreadableClipError
from vlm_crash.video.counting import counted
from vlm_crash.video.fingerprint import MAX_S, NUM_BITS, NUM_WORDS, SAMPLING, Fingerprint, fingerprint
from vlm_crash.video.guarded import content_hash

logger = logging.getLogger(__name__)

PRINTS_FILE = "fingerprints.jsonl"
SAME_FILE, SAME_FRAMES, MIRRORED = "same file", "same frames", "mirrored frames"


@dataclass(frozen=True)
class Looked:
    """A clip that was looked at: what its file is, and its fingerprint; `reason` where there is none."""

    sha256: str | None
    print: Fingerprint | None
    reason: str | None = None


@dataclass(frozen=True)
class Pair:
    """Two clips that are one.

    Attributes:
        kind: SAME_FILE, SAME_FRAMES or MIRRORED.
        share, bits: as near_copies.NearCopy has them; 1 and 0 of the same file.
    """

    kind: str
    first: VideoSample
    second: VideoSample
    share: float
    bits: float

    def across(self, split_of: Mapping[str, str]) -> bool:
        """Whether the two stand in different splits."""
        return split_of[self.first.id] != split_of[self.second.id]

    def to_json(self, split_of: Mapping[str, str]) -> dict[str, Any]:
        """As a plain dict."""
        clips = {
            name: {
                "id": one.id, "event": one.event, "video": one.video, "split": split_of[one.id], "path": str(one.path)
            }
            for name, one in (("first", self.first), ("second", self.second))
        }  # fmt: skip
        facts = {"share_of_frames": round(self.share, 4), "differing_bits": round(self.bits, 2), "of_bits": NUM_BITS}
        return {"kind": self.kind, **clips, **facts, "across_splits": self.across(split_of)}


def look(
    samples: Sequence[VideoSample],
    num_workers: int,
    clip_timeout_s: float | None,
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
) -> list[Looked]:
    """One entry a sample, in their order.

    Args:
        num_workers: clips that are read at the same time.
        clip_timeout_s: most seconds for one; None or 0: no limit.
        folder: where fingerprints are kept.
        progress: told after each clip: clips done, clips in all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PRINTS_FILE
    known = _read_prints(path)
    found: dict[int, Looked] = {}
    with path.open("a", encoding="utf-8") as file, ThreadPoolExecutor(max(1, num_workers)) as pool:
        futures = {pool.submit(_look, s, known, clip_timeout_s): n for n, s in enumerate(samples)}
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                one = found[futures[future]] = future.result()
                if one.sha256 is not None and one.print is not None and one.sha256 not in known:
                    known[one.sha256] = one.print
                    _keep(file, one.sha256, one.print)
                if progress is not None:
                    progress(done, len(samples))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C: what waits is given up
    return [found[n] for n in range(len(samples))]


def _look(sample: VideoSample, known: Mapping[str, Fingerprint], timeout_s: float | None) -> Looked:
    if sample.quarantined is not None:
        return Looked(None, None, f"quarantined: {sample.quarantined}")
    try:
        sha256 = content_hash(sample.path, timeout_s)
        seen = known.get(sha256)
        found = fingerprint(sample.path, timeout_s) if seen is None else seen
    except UnreadableClipError as error:
        return Looked(None, None, error.reason)
    return Looked(sha256, found, None if len(found) else "no frame of it has a structure (all black, or one colour)")


def _keep(file: IO[str], sha256: str, one: Fingerprint) -> None:
    line = {
        "sha256": sha256, "times_s": one.times_s, "hashes": one.hashes_FW.tobytes().hex(),
        "mirrored": one.mirrored_FW.tobytes().hex(), "num_blank": one.num_blank, "is_whole": one.is_whole,
        "sampling": SAMPLING.to_json(),
    }  # fmt: skip
    file.write(json.dumps(line) + "\n")
    file.flush()


def _read_prints(path: Path) -> dict[str, Fingerprint]:
    """Fingerprints of an earlier audit; the clip of a line that was cut off, or has other frames, is read again."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            data = json.loads(line)
            if data.get("sampling") != SAMPLING.to_json():
                continue
            plain, mirrored = (
                np.frombuffer(bytes.fromhex(data[key]), np.uint64).reshape(len(data["times_s"]), NUM_WORDS)
                for key in ("hashes", "mirrored")
            )
            rest = data["num_blank"], data["is_whole"]
            found[str(data["sha256"])] = Fingerprint(tuple(data["times_s"]), plain, mirrored, *rest)
        except (ValueError, KeyError, TypeError, AttributeError):
            logger.warning("%s has a line that is no fingerprint; its clip is read again", path)
    if path.is_file() and not path.read_bytes().endswith(b"\n") and path.stat().st_size:
        with path.open("a", encoding="utf-8") as file:
            file.write("\n")
    return found


def pairs_of(samples: Sequence[VideoSample], looked: Sequence[Looked]) -> list[Pair]:
    """Every two clips that are one; of the same file once, by that."""
    by_hash: dict[str, list[int]] = defaultdict(list)
    for n, one in enumerate(looked):
        if one.sha256 is not None:
            by_hash[one.sha256].append(n)
    pairs = {(i, j): Pair(SAME_FILE, samples[i], samples[j], 1.0, 0.0) for same in by_hash.values()
             for i, j in combinations(same, 2)}  # fmt: skip
    seen = [n for n, one in enumerate(looked) if one.print is not None]
    for near in near_copies([one.print for one in looked if one.print is not None]):
        i, j = seen[near.first], seen[near.second]
        kind = MIRRORED if near.mirrored else SAME_FRAMES
        pairs.setdefault((i, j), Pair(kind, samples[i], samples[j], near.share, near.bits))
    return [pairs[key] for key in sorted(pairs)]


def copy_findings(pairs: Sequence[Pair], split_of: Mapping[str, str]) -> Iterator[Finding]:
    """Copies across splits are a leak; under two events, or twice in one split, they are said."""

    def found(of: list[Pair], severity: Severity, where: str, remedy: str) -> Iterator[Finding]:
        if of:
            what = f"{counted(len(of), 'pair')} of clips {where}: {some(_named(of, split_of), 3)}"
            ids = [[pair.first.id, pair.second.id] for pair in of]
            yield Finding("copies", severity, f"{what}; {remedy}", len(of), {"pairs": ids})

    apart = [pair for pair in pairs if pair.across(split_of)]
    remedy = "keep one clip of each pair, or keep both in one split (a --group_column of prepare)"
    yield from found(apart, "leak", "in different splits show the same", remedy)
    contrary = [pair for pair in pairs if pair.first.event != pair.second.event]
    yield from found(contrary, "warning", "show the same under two events", "one of the two labels is wrong")
    inside = [pair for pair in pairs if not pair.across(split_of) and pair.first.event == pair.second.event]
    yield from found(inside, "note", "within one split show the same", "such a clip counts twice")


def unseen_findings(samples: Sequence[VideoSample], looked: Sequence[Looked]) -> Iterator[Finding]:
    """Clips of which copies could not have been found, or not all of them."""

    def found(which: Callable[[Looked], str | None], severity: Severity, what: str, remedy: str) -> Iterator[Finding]:
        reasons = [(sample, which(one)) for sample, one in zip(samples, looked, strict=True)]
        of = [(sample, reason) for sample, reason in reasons if reason is not None]
        if of:
            names = some([f"{sample.event}/{sample.video} ({reason})" for sample, reason in of], 3)
            clips = [{"id": sample.id, "path": str(sample.path), "reason": reason} for sample, reason in of]
            sentence = f"{what.format(clips=counted(len(of), 'clip'))}: {names}; {remedy}"
            yield Finding("not looked at", severity, sentence, len(of), {"clips": clips})

    what = "copies of {clips} were not looked for"
    yield from found(lambda one: one.reason, "warning", what, "run `check` on the dataset")
    what = "{clips} without enough structure to compare; in longer ones they were not looked for"
    yield from found(_blank, "note", what, "look at them yourself")
    minutes = f"{MAX_S / 60:g} minutes"
    what = f"{{clips}} over {minutes}: copies are looked for in the first {minutes} only"
    yield from found(_long, "note", what, "cut them into shorter ones to have all of it compared")


def _blank(one: Looked) -> str | None:
    """Why a clip that has frames with a structure was not looked for in longer ones."""
    if one.print is None or one.reason is not None or is_enough(one.print):
        return None
    structured, frames = len(one.print), len(one.print) + one.print.num_blank
    return f"{structured} of {frames} frames {'has' if structured == 1 else 'have'} a structure"


def _long(one: Looked) -> str | None:
    """How much of a clip that is too long was looked at."""
    if one.print is None or one.print.is_whole:
        return None
    return f"seen up to {one.print.times_s[-1]:.0f} s" if len(one.print) else "nothing with a structure in them"


def _named(pairs: Sequence[Pair], split_of: Mapping[str, str]) -> list[str]:
    def name(sample: VideoSample) -> str:
        return f"{sample.event}/{sample.video} ({split_of[sample.id]})"

    return [f"{name(pair.first)} and {name(pair.second)}" for pair in pairs]


def default_workers() -> int:
    """One for each CPU core that this process may use."""
    return len(os.sched_getaffinity(0))
