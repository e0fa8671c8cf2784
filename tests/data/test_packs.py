"""Packs hold every clip once and no more tokens than they may; their number is that of the lengths."""

import random

import pytest

from vlm_crash.data.packs import even_packs, num_packs


def lengths(kind: str) -> list[int]:
    draw = random.Random(0)
    if kind == "few":
        return [draw.choice([300, 420, 600]) for _ in range(200)]
    if kind == "hard":  # fit only where packs are filled to the brim
        return [60, 40] * 20 + [50] * 20
    return [draw.randint(100, 1000) for _ in range(200)]


@pytest.mark.parametrize(("kind", "pack_tokens"), [("many", 1000), ("many", 4096), ("few", 1500), ("hard", 100)])
def test_every_clip_once_and_never_too_many_tokens(kind, pack_tokens):
    sizes = lengths(kind)
    number = num_packs(sizes, pack_tokens)
    found = []
    for seed in range(5):
        order = random.Random(seed).sample(range(len(sizes)), len(sizes))
        packs = even_packs(order, sizes, pack_tokens, number)
        assert sorted(index for pack in packs for index in pack) == list(range(len(sizes)))
        loads = [sum(sizes[index] for index in pack) for pack in packs]
        assert max(loads) <= pack_tokens and len(packs) == number
        found.append({frozenset(pack) for pack in packs if len(pack) > 1})
    assert number <= 1.12 * sum(sizes) / pack_tokens + 1
    if kind == "many" and pack_tokens == 4096:
        assert max(loads) - min(loads) < 0.1 * pack_tokens, "the work of a step is that of the next"
    assert len(found[0] & found[1]) < 0.5 * len(found[0]), "the order decides which clips come together"


def test_one_clip_a_pack_where_none_fit_together():
    assert num_packs([60, 70, 100], 100) == 3
    assert sorted(even_packs([2, 0, 1], [60, 70, 100], 100, 3)) == [(0,), (1,), (2,)]
