"""Clips into packs of at most so many tokens.

Enters: lengths, an order of the clips. Leaves: packs. Invariant: the number of packs depends on the lengths alone, so
that every epoch has as many batches, while which clips come together follows the order.
"""

import heapq
from bisect import bisect_left, insort
from collections.abc import Callable, Sequence

#: A pack's tokens in this many parts: clips that take as many of them may take each other's places.
PARTS = 128


def num_packs(lengths: Sequence[int], pack_tokens: int) -> int:
    """Packs that hold all clips, whatever the order of clips of one size.

    >>> num_packs([60, 50, 40, 30, 20], 100)
    2
    """
    return len(_fullest_packs(range(len(lengths)), lengths, pack_tokens))


def even_packs(order: Sequence[int], lengths: Sequence[int], pack_tokens: int, number: int) -> list[tuple[int, ...]]:
    """So many packs with all clips, as even as they can be: the work of a step is that of the next.

    Args:
        order: the clips, shuffled; which of those of one size come together follows from it.
        lengths: most tokens of each clip.
        pack_tokens: most tokens of a pack.
        number: what num_packs says.
    """
    packs: list[list[int]] = [[] for _ in range(number)]
    loads = [(0, place) for place in range(number)]
    for index in _by_size(order, lengths, pack_tokens):
        load, place = loads[0]
        if load + lengths[index] > pack_tokens:
            # They fit only where packs are filled to the brim.
            packs = _fullest_packs(order, lengths, pack_tokens)
            break
        packs[place].append(index)
        heapq.heapreplace(loads, (load + lengths[index], place))
    assert len(packs) == number
    return [tuple(pack) for pack in packs]


def _size(pack_tokens: int) -> Callable[[int], int]:
    """Lengths rounded up to a few sizes, at most that of a pack."""
    unit = max(1, pack_tokens // PARTS)
    return lambda length: min(-(-length // unit) * unit, pack_tokens)


def _by_size(order: Sequence[int], lengths: Sequence[int], pack_tokens: int) -> list[int]:
    """The clips by falling size, those of one size in their order."""
    size = _size(pack_tokens)
    return sorted(order, key=lambda index: size(lengths[index]), reverse=True)


def _fullest_packs(order: Sequence[int], lengths: Sequence[int], pack_tokens: int) -> list[list[int]]:
    """Best fit, the largest first: how many packs there are depends on the sizes alone."""
    size = _size(pack_tokens)
    packs: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (room left, number of the pack), rising
    for index in _by_size(order, lengths, pack_tokens):
        wanted = size(lengths[index])
        place = bisect_left(rooms, (wanted, -1))
        if place == len(rooms):
            rooms.append((pack_tokens, len(packs)))
            packs.append([])
        room, number = rooms.pop(place)
        packs[number].append(index)
        insort(rooms, (room - wanted, number))
    return packs
