"""Clips into packs of at most so many tokens.

Enters: lengths, an order of the clips. Leaves: packs. Invariant: the number of packs depends on the lengths alone, so
that every epoch has as many batches, while which clips come together follows the order.
"""

import heapq
import math
from bisect import bisect_left, insort
from collections.abc import Sequence

#: Share of a pack that is filled, where lengths allow it: with some room packs come out even, and by chance.
FILL = 0.95
#: Clips whose lengths differ by less than this part of a pack may take each other's places. The larger, the more is
#: left to chance; where a pack comes out too full, the next is tried.
PARTS = (1 / 4, 1 / 16, 1 / 128)


def num_packs(lengths: Sequence[int], pack_tokens: int) -> int:
    """Packs of an epoch, whatever its order.

    >>> num_packs([60, 50, 40, 30, 20], 100)
    3
    >>> num_packs([60, 50, 40, 30, 20], 110)
    2
    """
    fewest = len(_fullest_packs(range(len(lengths)), lengths, pack_tokens))
    return min(len(lengths), max(fewest, math.ceil(sum(lengths) / (FILL * pack_tokens))))


def even_packs(order: Sequence[int], lengths: Sequence[int], pack_tokens: int, number: int) -> list[tuple[int, ...]]:
    """So many packs with all clips, as even as they can be: the work of a step is that of the next.

    Args:
        order: the clips, shuffled; which of those of similar length come together follows from it.
        lengths: most tokens of each clip.
        pack_tokens: most tokens of a pack.
        number: what num_packs says.
    """
    for part in PARTS:
        size = max(1, round(part * pack_tokens))
        sizes = [-(length // size) for length in lengths]
        by_size = sorted(order, key=sizes.__getitem__)
        packs = _emptiest_first(by_size, lengths, pack_tokens, number)
        if packs is not None:
            return [tuple(pack) for pack in packs]
    packs = _fullest_packs(order, lengths, pack_tokens)
    while len(packs) < number:
        most = max(packs, key=len)
        packs.append([most.pop()])
    return [tuple(pack) for pack in packs]


def _emptiest_first(
    order: Sequence[int], lengths: Sequence[int], pack_tokens: int, number: int
) -> list[list[int]] | None:
    """Each clip goes to the emptiest pack; None where one does not fit."""
    packs: list[list[int]] = [[] for _ in range(number)]
    loads = [(0, place) for place in range(number)]
    for index in order:
        load, place = loads[0]
        if load + lengths[index] > pack_tokens:
            return None
        packs[place].append(index)
        heapq.heapreplace(loads, (load + lengths[index], place))
    return packs


def _fullest_packs(order: Sequence[int], lengths: Sequence[int], pack_tokens: int) -> list[list[int]]:
    """Best fit, the longest first: how many packs there are depends on the lengths alone."""
    packs: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (room left, number of the pack), rising
    for index in sorted(order, key=lengths.__getitem__, reverse=True):
        place = bisect_left(rooms, (lengths[index], -1))
        if place == len(rooms):
            rooms.append((pack_tokens, len(packs)))
            packs.append([])
        room, number = rooms.pop(place)
        packs[number].append(index)
        insort(rooms, (room - lengths[index], number))
    return packs
