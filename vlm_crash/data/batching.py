"""Which clips make a batch, by their lengths.

Enters: how many tokens each clip takes, a seed, an epoch. Leaves: the order of an epoch: clips of similar length beside
each other (grouped), or packs of clips that share a row (packed). Invariants: every clip stands in an epoch once; an
epoch has as many batches as any other; the order depends on the number of processes in nothing that a run which goes
on with another number would notice.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch.utils.data import Dataset

from vlm_crash.data.packs import even_packs, num_packs
from vlm_crash.data.sampler import SharedSampler
from vlm_crash.schema.records import VideoSample

BATCHING = ("padded", "grouped", "packed")
#: Lengths are sorted among so many turns of all processes (fewer where the clips are few), then the turns are shuffled.
TURNS_SORTED = (4, 32)


def train_sampler(
    batching: str, lengths: Sequence[int], pack_tokens: int, resumed_kind: Mapping[str, Any], options: Mapping[str, Any]
) -> SharedSampler:
    """The order of the training clips.

    Args:
        batching: one of BATCHING.
        lengths: most tokens of each clip.
        pack_tokens: most tokens of a pack.
        resumed_kind: the `kind` of the sampler that the run was stopped with; empty: it was not stopped.
        options: of SharedSampler.

    Raises:
        ValueError: a run that was stopped inside an epoch goes on with other batches, of which nobody knows which
            clips were seen.
    """
    if batching == "grouped":
        sampler: SharedSampler = GroupedSampler(lengths, resumed_kind.get("turn"), **options)
    elif batching == "packed":
        sampler = PackedSampler(lengths, pack_tokens, **options)
    else:
        sampler = SharedSampler(lengths, **options)  # type: ignore[arg-type]
    before = {name: value for name, value in (resumed_kind or sampler.kind).items() if name != "turn"}
    now = {name: value for name, value in sampler.kind.items() if name != "turn"}
    if sampler.resumed[1] and before != now:
        asked = " ".join(f"--data.{name} {value}" for name, value in before.items())
        raise ValueError(
            f"the run was stopped inside an epoch of {before['batching']} batches, and its order is that of "
            f"{asked}; give this to go on, or a checkpoint of the end of an epoch"
        )
    return sampler


def check_batching(
    batching: str, samples: Sequence[VideoSample], lengths: Sequence[int], sizes: tuple[int, int]
) -> None:
    """ValueError where clips cannot be put together as asked.

    Args:
        sizes: clips that all processes take at once; most tokens of a pack.
    """
    turn, pack_tokens = sizes
    if batching == "grouped" and turn == 1:
        raise ValueError(
            "batching='grouped' has nothing to group, as one clip is taken at a time; set --data.batch_size to 2 or "
            "more, or --data.batching to padded"
        )
    if batching != "packed":
        return
    longest = max(range(len(lengths)), key=lengths.__getitem__)
    if lengths[longest] > pack_tokens:
        raise ValueError(
            f"{samples[longest].video} takes up to {lengths[longest]} tokens, and a pack holds {pack_tokens}; set "
            f"--data.pack_tokens to {lengths[longest]} or more, or lower --data.num_frames"
        )
    if num_packs(lengths, pack_tokens) == len(lengths):
        raise ValueError(
            f"no two clips fit into a pack of {pack_tokens} tokens (they take {min(lengths)} to {max(lengths)}); "
            "raise --data.pack_tokens (unset: --data.batch_size times the longest), or set --data.batching to padded"
        )


class GroupedSampler(SharedSampler):
    """Every clip once, with clips of similar length in what all processes take at once.

    Args:
        lengths: tokens of each clip.
        turn: clips that were taken at once where the resumed epoch began; None: as many as now.
    """

    def __init__(self, lengths: Sequence[int], turn: int | None = None, **options: Any) -> None:
        super().__init__(lengths, **options)  # type: ignore[arg-type]
        self.lengths = lengths
        self.resumed_turn = turn

    @property
    def turn(self) -> int:
        """Clips that belong together in this epoch's order."""
        is_resumed = self.epoch == self.resumed[0] and self.resumed[1] > 0
        return (self.resumed_turn if is_resumed else None) or self.clips_per_turn

    @property
    def kind(self) -> dict[str, Any]:
        return {"batching": "grouped", "turn": self.turn}

    def order(self) -> list[int]:
        turn = self.turn
        least, most = TURNS_SORTED
        chunk = turn * min(max(self.size // turn // 4, least), most)
        generator, shuffled = self.generator(), super().order()
        turns: list[list[int]] = []
        for low in range(0, self.size, chunk):
            # Sorting is stable: clips of one length stay shuffled.
            sorted_ = sorted(shuffled[low : low + chunk], key=self.lengths.__getitem__, reverse=True)
            turns += [sorted_[first : first + turn] for first in range(0, len(sorted_), turn)]
        # What is left over comes last, as turns are counted from the front.
        last = [turns.pop()] if turns and len(turns[-1]) < turn else []
        places = torch.randperm(len(turns), generator=generator).tolist()
        return [index for one in [*(turns[place] for place in places), *last] for index in one]


class PackedSampler(SharedSampler):
    """Every clip once, in packs of at most so many tokens: indices are tuples of clips that share a row.

    Args:
        lengths: most tokens of each clip.
        pack_tokens: most tokens of a pack; no clip may have more.
    """

    def __init__(self, lengths: Sequence[int], pack_tokens: int, **options: Any) -> None:
        super().__init__(lengths, **options)  # type: ignore[arg-type]
        self.lengths = lengths
        self.pack_tokens = pack_tokens
        self.num_entries = num_packs(lengths, pack_tokens)

    @property
    def kind(self) -> dict[str, Any]:
        return {"batching": "packed", "pack_tokens": self.pack_tokens}

    def order(self) -> list[tuple[int, ...]]:
        generator, shuffled = self.generator(), super().order()
        packs = even_packs(shuffled, self.lengths, self.pack_tokens, self.num_entries)
        return [packs[place] for place in torch.randperm(len(packs), generator=generator).tolist()]

    @staticmethod
    def filler(entry: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(~index for index in entry)

    @property
    def num_batches(self) -> int:
        return len(self)

    def clips_after(self, batches: int) -> int:
        return sum(map(len, self.order()[: batches * self.num_replicas]))

    def batches_after(self, clips: int) -> int:
        seen = list(accumulate(map(len, self.order())))
        return self.num_batches if clips >= self.size else bisect_right(seen, clips) // self.num_replicas

    def entries_after(self, clips: int) -> int:
        return self.batches_after(clips) * self.num_replicas


class Packs(Dataset):
    """Lists of items, by tuples of indices."""

    def __init__(self, clips: Dataset) -> None:
        self.clips = clips

    def __getitem__(self, pack: tuple[int, ...]) -> list[object]:
        return [self.clips[index] for index in pack]
