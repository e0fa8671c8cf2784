"""The schema as a form that a model fills in, line by line.

Enters: a schema, and how its texts become token ids. Leaves: per row of a batch a generator that says which tokens come
next and is told what the model thinks of what may follow them, until a FilledForm is there. Invariants: openings,
headings, labels and line breaks are given, never generated; a choice is one of its field's terms; every filled form is
read back by schema.response.parse; its tokens are those that training sees, wherever a tokenizer draws its borders
(".\n", "\n- Weather: "). No tensor and no model appears here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from vlm_crash.models.term_tree import TermTree, best_term
from vlm_crash.schema.fields import MAX_COUNT, UNKNOWN, Event, Field, Schema
from vlm_crash.schema.response import parse

#: What a count may be.
COUNTS = tuple(map(str, range(MAX_COUNT + 1)))
#: Line breaks of str.splitlines, by which responses are read.
LINE_BREAK = re.compile(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")


@dataclass(frozen=True)
class Ask:
    """What a row wants of the model.

    Attributes:
        ids: tokens to add to its text; none where the answer so far ends in what was asked last.
        tree: terms to judge after them; None: the most likely next token is wanted.
        keep: nodes of the tree that was judged last which have become part of the text.
        may_end: whether the next token may end the line.
    """

    ids: tuple[int, ...]
    tree: TermTree | None = None
    keep: tuple[int, ...] = ()
    may_end: bool = True


#: For a tree its scores per choice; else a token, with its log-probability.
Seen = list[list[float]] | tuple[int, float]


@dataclass(frozen=True)
class FilledForm:
    """An answer.

    Attributes:
        event: name.
        event_probabilities: by event.
        fields: by field a term, a count, a line of text, or UNKNOWN where nothing readable was written.
        field_probabilities: by choice and count field, by term.
        text_log_probabilities: by text field the mean log-probability of its tokens and of what ends it.
        response: the whole text.
        cut: text fields that had no room to end by themselves.
    """

    event: str
    event_probabilities: Mapping[str, float]
    fields: Mapping[str, str]
    field_probabilities: Mapping[str, Mapping[str, float]]
    text_log_probabilities: Mapping[str, float]
    response: str
    cut: tuple[str, ...] = ()


#: Text -> its tokens: (id, where in the text it ends).
Tokens = Callable[[str], Sequence[tuple[int, int]]]


@dataclass(frozen=True)
class Slot:
    """One line of the form.

    Attributes:
        label: what stands before the value, without headings.
        ahead: what stands between the value before it and its own, line breaks and headings included.
        terms: what may be chosen; none: it is a text.
    """

    field: Field
    label: str
    ahead: str
    terms: tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """A place in the text before a value.

    Attributes:
        line: the text before it that decides how it is tokenized: the line before, as far as it was written.
        ahead: what is to be written before the value.
    """

    line: str
    ahead: str


@dataclass(frozen=True)
class Terms:
    """The terms of a slot at a place.

    Attributes:
        tree: each term with the token that shows its end.
        nexts: per term, where its text then stands.
    """

    tree: TermTree
    nexts: tuple[Place, ...]


@dataclass(frozen=True)
class AnswerForm:
    """A schema as a form.

    Args:
        schema: events and fields; an open field without terms is a text.
        tokens: text -> tokens, as training sees them in an answer.
        text: ids -> text.
        end_token_id: ends an answer.
    """

    schema: Schema
    tokens: Tokens
    text: Callable[[Sequence[int]], str]
    end_token_id: int

    @cached_property
    def slots(self) -> dict[str, tuple[Slot, ...]]:
        """The lines of each event's form."""
        return {event.name: tuple(_slots(event)) for event in self.schema.events}

    @cached_property
    def events(self) -> Terms:
        """The openings of the events, by their names.

        Raises:
            ValueError: the tokenizer writes two of them alike.
        """
        followers = {e.name: self.slots[e.name][0].ahead if e.fields else "" for e in self.schema.events}
        values = {event.name: (event.opening, followers[event.name]) for event in self.schema.events}
        return self._terms(Place("", ""), "", values)

    @cached_property
    def terms(self) -> Callable[[str, int, Place], Terms]:
        """Event, number of the slot, place -> its terms there; raises ValueError as `events` does."""
        # Bounded, as a place after a text has that text's last word in it.
        return lru_cache(4096)(self._terms_of)

    def _terms_of(self, event: str, number: int, place: Place) -> Terms:
        slots = self.slots[event]
        follower = slots[number + 1].ahead if number + 1 < len(slots) else ""
        slot = slots[number]
        return self._terms(place, slot.label, {term: (term, follower) for term in slot.terms})

    def _terms(self, place: Place, label: str, values: Mapping[str, tuple[str, str]]) -> Terms:
        """By term, its text and what follows it; nothing: the end of the answer."""
        sequences, nexts = {}, []
        for term, (value, follower) in values.items():
            text = place.ahead + value
            tokens = self.after(place.line, text + follower)
            size = next((n for n, (_, end) in enumerate(tokens, 1) if end > len(text)), len(tokens))
            ids = [token for token, _ in tokens[:size]]
            sequences[term] = ids if follower else [*ids, self.end_token_id]
            written = follower[: max(0, tokens[size - 1][1] - len(text))]
            nexts.append(Place(f"{label} {value}{written}".lstrip(), follower[len(written) :]))
        return Terms(TermTree.of(sequences), tuple(nexts))

    def after(self, line: str, text: str) -> list[tuple[int, int]]:
        """Tokens of a text that follows a line, with their ends in the text."""
        whole = self.tokens(line + text)
        size = sum(end <= len(line) for _, end in whole) if line else 0
        if size and whole[size - 1][1] < len(line):  # a token lies across the border
            return list(self.tokens(text))
        return [(token, end - len(line)) for token, end in whole[size:]]

    def head(self, place: Place) -> tuple[int, ...]:
        """Tokens before a text: those in which nothing of its first word stands."""
        tokens = self.after(place.line, place.ahead + "A")
        return tuple(token for token, end in tokens if end <= len(place.ahead))

    @cached_property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """Per event the most tokens of its form without its texts, and how many texts there are."""
        sizes = {}
        for event, opening, place in zip(self.slots, range(len(self.slots)), self.events.nexts, strict=True):
            given, texts = len(self.events.tree.tokens(opening)), 0
            for number, slot in enumerate(self.slots[event]):
                if slot.terms:
                    terms = self.terms(event, number, place)
                    given += max(len(terms.tree.tokens(term)) for term in range(len(slot.terms)))
                    place = terms.nexts[0]
                else:
                    # A text ends with a line break and, where a token holds more than that, a token before it.
                    given, texts = given + len(self.head(place)) + 2, texts + 1
                    follower = self.slots[event][number + 1 : number + 2]
                    place = Place(f"{slot.label} a", follower[0].ahead if follower else "")
            sizes[event] = given, texts
        return sizes

    @property
    def least(self) -> int:
        """Tokens that every answer has places for, with one of each text."""
        return max(given + texts for given, texts in self.sizes.values())

    def most(self, room: int) -> int:
        """Most tokens of an answer whose texts take so many each."""
        return max(given + texts * room for given, texts in self.sizes.values())

    def text_room(self, places: int, most: int) -> int:
        """Tokens that each text may take, `most` at most, where an answer has so many places."""
        return min([most, *((places - given) // texts for given, texts in self.sizes.values() if texts)])

    def fill(self, room: int, ends: Sequence[bool], greedy: bool = False) -> Generator[Ask, Any, FilledForm]:
        """Fill the form in.

        Args:
            room: most tokens of a text.
            ends: by token id, whether it ends a line.
            greedy: follow the best token of each choice, instead of taking the most probable term.
        """
        pen = _Pen(self, greedy)
        events, chosen = yield from pen.choose(self.events)
        event = self.schema.events[chosen]
        fields: dict[str, str] = {}
        probabilities: dict[str, Mapping[str, float]] = {}
        log_probabilities: dict[str, float] = {}
        cut = []
        lines = [event.opening]
        slots = self.slots[event.name]
        for number, slot in enumerate(slots):
            name = slot.field.name
            if slot.terms:
                probabilities[name], chosen = yield from pen.choose(self.terms(event.name, number, pen.place))
                fields[name] = slot.terms[chosen]
            else:
                follower = slots[number + 1].ahead if number + 1 < len(slots) else ""
                value, log_probabilities[name], is_cut = yield from pen.write(slot.label, follower, room, ends)
                fields[name] = self._readable(event, slot, value)
                cut += [name] if is_cut else []
            lines.append(slot.ahead + fields[name])
        response = "".join(lines)
        return FilledForm(event.name, events, fields, probabilities, log_probabilities, response, tuple(cut))

    def _readable(self, event: Event, slot: Slot, value: str) -> str:
        """A text as it will be read back; UNKNOWN where there is nothing to read in it."""
        said = self._read(event, slot, value)
        return said if said is not None and self._read(event, slot, said) == said else UNKNOWN

    def _read(self, event: Event, slot: Slot, value: str) -> str | None:
        read = parse(self.schema, f"{event.opening}\n{slot.label} {value}", event.name)
        return read.answers[slot.field.name].value


class _Pen:
    """What is written, and what of it the model has not seen yet: tokens, and nodes of a tree that it has."""

    def __init__(self, form: AnswerForm, greedy: bool) -> None:
        self.form = form
        self.greedy = greedy
        self.place = Place("", "")
        self.ids: tuple[int, ...] = ()
        self.keep: tuple[int, ...] = ()

    def choose(self, terms: Terms) -> Generator[Ask, Any, tuple[dict[str, float], int]]:
        """The probability of each term, and the number of the chosen one."""
        tree = terms.tree
        if len(tree.terms) == 1:
            self.ids, self.place = self.ids + tree.head, terms.nexts[0]
            return {tree.terms[0]: 1.0}, 0
        scores = yield Ask(self.ids + tree.head, tree, self.keep)
        chosen = tree.greedy(scores) if self.greedy else best_term(tree.log_probs(scores))
        self.keep, self.ids, self.place = tree.kept[chosen], tree.rest[chosen], terms.nexts[chosen]
        return tree.probabilities(scores), chosen

    def write(
        self, label: str, follower: str, room: int, ends: Sequence[bool]
    ) -> Generator[Ask, Any, tuple[str, float, bool]]:
        """A text, its mean log-probability, and whether it was cut."""
        form, ids, log_probs, said = self.form, list[int](), list[float](), ""
        ask = Ask(self.ids + form.head(self.place), None, self.keep, may_end=False)
        self.keep, self.ids, rest = (), (), ""
        while True:
            token, log_prob = yield ask
            log_probs.append(log_prob)
            whole = form.text([*ids, token])
            if ends[token]:
                # The token that ends a line may hold its last words, too (".\n").
                line_break = LINE_BREAK.search(whole, len(said))
                rest = (whole[: line_break.start()] if line_break else whole)[len(said) :]
                break
            ids.append(token)
            said = whole
            if len(ids) == room:
                self.ids = (token,)
                break
            ask = Ask((token,), may_end=bool(said.strip("*_ \t")))
        # Its last word decides about the tokens that follow.
        self.place = Place(f"{label} {said.split(' ')[-1]}", rest + follower)
        return " ".join((said + rest).split()), sum(log_probs) / len(log_probs), not ends[token]


def _slots(event: Event) -> Generator[Slot]:
    section: str | None = None
    for field in event.fields:
        label = f"- {field.label}:"
        ahead = f"\n{label} " if field.section == section else f"\n\n**{field.section}:**\n{label} "
        section = field.section
        yield Slot(field, label, ahead, COUNTS if field.kind == "count" else field.vocabulary)
