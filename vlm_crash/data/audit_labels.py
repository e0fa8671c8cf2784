"""Labels by themselves: fields that say the same everywhere, terms that are too rare, spellings, splits that differ.

Enters: samples with their split. Leaves: findings, and the counts they come from. Must hold: Unknown is no term; texts
are not counted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from vlm_crash.data.audit_findings import Finding, some
from vlm_crash.data.multiple_testing import holm
from vlm_crash.data.splits import SPLITS
from vlm_crash.schema.fields import Field, Schema
from vlm_crash.schema.records import VideoSample
from vlm_crash.schema.wording import words
from vlm_crash.video.counting import counted

#: Clips that a term needs: of fewer, nothing can be learnt or scored with certainty.
LEAST_CLIPS = 5
#: A field of which so large a share of the known values is one term tells nothing.
CONSTANT_SHARE = 0.99
#: Chance of calling a split different that is not, over all fields together.
ALPHA = 0.01
#: What turns a word into its contrary, not into a misspelling of it.
_PREFIXES = ("un", "non", "in", "im", "dis", "ir")

#: event -> field ("event" for the event itself, under "") -> split -> term -> clips
Counts = Mapping[str, Mapping[str, Mapping[str, Mapping[str, int]]]]


def label_counts(splits: Mapping[str, Sequence[VideoSample]], schema: Schema) -> dict[str, dict[str, Any]]:
    """Clips by event, field, split and term; the events themselves are the field "event" of the event ""."""
    counts: dict[str, dict[str, dict[str, Counter[str]]]] = defaultdict(dict)
    counts[""]["event"] = {split: Counter(str(s.event) for s in found) for split, found in splits.items()}
    for event in schema.events:
        for field in event.fields:
            if field.kind != "text":
                counts[event.name][field.name] = {
                    split: Counter(
                        s.annotation.known[field.name]
                        for s in found
                        if s.event == event.name and s.annotation and field.name in s.annotation.known
                    )
                    for split, found in splits.items()
                }
    return {
        event: {name: {split: dict(terms.most_common()) for split, terms in by_split.items()}
                for name, by_split in fields.items()}
        for event, fields in counts.items()
    }  # fmt: skip


def label_findings(counts: Counts, schema: Schema, num_clips: Mapping[str, int]) -> Iterator[Finding]:
    """Fields without a value, or with one value; terms of few clips; terms that no training clip has."""
    for event, fields in counts.items():
        rare: list[str] = []
        unseen: list[str] = []
        for name, by_split in fields.items():
            terms = _all(by_split)
            label, total = f"{event} {name}".strip(), sum(terms.values())
            if event and num_clips.get(event) and not total:
                sentence = f"{label} is Unknown for all {num_clips[event]:,} clips; leave the field out of the schema"
                yield Finding("labels", "warning", sentence, num_clips[event], {"event": event, "field": name})
            elif event and total and max(terms.values()) >= CONSTANT_SHARE * total:
                term, n = max(terms.items(), key=lambda item: item[1])
                sentence = (
                    f"{label} is {term!r} for {n:,} of {total:,} clips: always to say so is right, and says nothing; "
                    "do not count it among the scores"
                )
                yield Finding("labels", "warning", sentence, n, {"event": event, "field": name, "term": term})
            if event and schema.field(name).kind == "categorical":
                rare += [f"{label} {t!r} ({n})" for t, n in terms.items() if n < LEAST_CLIPS]
            unseen += [f"{label} {t!r} ({n})" for t, n in _unseen(by_split).items()]
        if rare:
            what = f"{counted(len(rare), 'term')} of {event} have fewer than {LEAST_CLIPS} clips: {some(rare)}"
            remedy = "merge them with others, or annotate more; their scores say little"
            yield Finding("labels", "note", f"{what}; {remedy}", len(rare), {"event": event, "terms": rare})
        if unseen:
            what = f"{counted(len(unseen), 'term')} stand in val or test, and in no training clip: {some(unseen)}"
            details = {"event": event, "terms": unseen}
            yield Finding("labels", "warning", f"{what}; they cannot be learnt", len(unseen), details)


def balance_findings(counts: Counts) -> Iterator[Finding]:
    """Splits that lack an event, or whose terms are spread otherwise than those of the others (chi-squared, Holm)."""
    by_split = counts[""]["event"]
    for split in (split for split in SPLITS if by_split.get(split)):
        lacking = [event for event in _all(by_split) if not by_split[split].get(event)]
        if lacking:
            sentence = f"the split {split} has no {' and no '.join(lacking)} clips; prepare with other --fractions"
            yield Finding("balance", "warning", sentence, len(lacking), {"split": split, "events": lacking})
    tested = [(event, name, p) for event, fields in counts.items() for name, split in fields.items()
              if (p := _differs(split)) is not None]  # fmt: skip
    for (event, name, _), p in zip(tested, holm([p for *_, p in tested]), strict=True):
        if p < ALPHA:
            shares = "; ".join(f"{split}: {_shares(terms)}" for split, terms in counts[event][name].items() if terms)
            sentence = f"{f'{event} {name}'.strip()} is spread unevenly over the splits (p {p:.1g}): {shares}"
            yield Finding("balance", "note", sentence, 1, {"event": event, "field": name, "p": p})


def spelling_findings(
    cells: Mapping[tuple[str, str], Mapping[str, int]], schema: Schema, source: str
) -> Iterator[Finding]:
    """Values of categorical fields that seem to be one term, spelt in several ways.

    Args:
        cells: (event, field) -> value as it stands -> rows.
        source: where they stand, for the sentence.
    """
    for (event, name), counts in cells.items():
        for one, other in spelling_variants(counts, schema.field(name)):
            most, least = sorted((one, other), key=lambda term: (-counts[term], term))
            sentence = (
                f"{event} {name}: {most!r} ({counts[most]:,}) and {least!r} ({counts[least]:,}) in {source} seem to be "
                "one term; write it in one way"
            )
            details = {"event": event, "field": name, "terms": {t: counts[t] for t in (most, least)}, "in": source}
            yield Finding("spelling", "warning", sentence, counts[least], details)


def spelling_variants(counts: Mapping[str, int], field: Field) -> list[tuple[str, str]]:
    """(Frequent, rare) values that differ in case, blanks, punctuation or a letter or two, and in no digit.

    >>> from vlm_crash.schema import load_schema
    >>> field = load_schema().field("Crash_with")
    >>> spelling_variants({"Motorcycle": 9, "motor-cycle": 1, "Motorcylce": 1, "Lane_1": 1, "Lane_2": 1}, field)
    [('Motorcycle', 'Motorcylce'), ('Motorcycle', 'motor-cycle')]
    """
    terms = sorted(counts, key=lambda term: (-counts[term], term))
    own = set(field.vocabulary) if field.closed else set()
    found: dict[str, str] = {}  # each once, beside the most frequent one that it may be
    for one, other in combinations(terms, 2):
        if other not in found and one not in found and not {one, other} <= own and _is_variant(one, other):
            found[other] = one
    return [(one, other) for other, one in found.items()]


def _is_variant(a: str, b: str) -> bool:
    left, right = (" ".join(word for word in words(term.replace("_", " ")) if word != "or") for term in (a, b))
    plain = [text.replace(" ", "") for text in (left, right)]
    if plain[0] == plain[1]:
        return True
    short, long = sorted(plain, key=len)
    if _digits(short) != _digits(long) or any(long.replace(p, "", 1) == short for p in _PREFIXES):
        return False
    allowed = 0 if len(short) < 5 else 1 if len(short) < 9 else 2
    return len(long) - len(short) <= allowed and edit_distance(short, long) <= allowed


def _digits(text: str) -> str:
    return "".join(character for character in text if character.isdigit())


def edit_distance(left: str, right: str) -> int:
    """Letters to put in, take out, replace, or swap with their neighbour (optimal string alignment).

    >>> edit_distance("motorcylce", "motorcycle"), edit_distance("van", "vans"), edit_distance("", "ab")
    (1, 1, 2)
    """
    before: list[int] = []
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, start=1):
        before, last = row, before
        row = [i]
        for j, b in enumerate(right, start=1):
            cost = min(before[j] + 1, row[-1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == right[j - 2] and left[i - 2] == b:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]


def _all(by_split: Mapping[str, Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for terms in by_split.values():
        total.update(terms)
    return total


def _unseen(by_split: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    train = by_split.get("train", {})
    return {term: n for term, n in _all(by_split).items() if term not in train} if train else {}


def _differs(by_split: Mapping[str, Mapping[str, int]]) -> float | None:
    """p of the terms being spread in the same way; None where there is too little for an answer."""
    from scipy.stats import chi2_contingency

    splits = [terms for terms in by_split.values() if terms]
    terms = [term for term, n in _all(by_split).items() if n >= 2 * LEAST_CLIPS]
    if len(splits) < 2 or len(terms) < 2:
        return None
    table = np.array([[found.get(term, 0) for term in terms] for found in splits])
    if (table.sum(axis=1) == 0).any():
        return None
    return float(chi2_contingency(table).pvalue)


def _shares(terms: Mapping[str, int]) -> str:
    total = sum(terms.values())
    most = sorted(terms.items(), key=lambda item: -item[1])[:3]
    return ", ".join(f"{term} {100 * n / total:.0f} %" for term, n in most)
