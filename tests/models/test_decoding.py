"""Decoding against transformers' generate, and against forward passes of whole texts without a cache."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vlm_crash.data.conversation import ChatTemplate
from vlm_crash.data.tokenization import ConversationTokenizer
from vlm_crash.models.answer_form import AnswerForm, Ask, FilledForm
from vlm_crash.models.decoding import Decoder, event_probabilities, fill_forms, greedy_answers
from vlm_crash.models.internvl import load_model
from vlm_crash.models.term_tree import ROOT
from vlm_crash.models.text_tokens import TextTokens
from vlm_crash.models.tokenizers import load_tokenizer
from vlm_crash.models.vision import embed_prompt
from vlm_crash.schema.fields import Schema, load_schema
from vlm_crash.schema.response import parse

END = 2
ROOM = 5


def _batch() -> tuple[Tensor, Tensor, Tensor]:
    """Three left-padded rows of different length with one frame each."""
    torch.manual_seed(2)
    ids, mask = torch.zeros(3, 30, dtype=torch.long), torch.zeros(3, 30, dtype=torch.long)
    for row, size in enumerate((30, 24, 19)):
        ids[row, 30 - size :] = torch.randint(6, 300, (size,))
        ids[row, 32 - size : 48 - size] = 5
        mask[row, 30 - size :] = 1
    return ids, mask, torch.randn(3, 3, 128, 128)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    """The tiny model with larger weights, so that its logits are far from ties."""
    torch.manual_seed(3)
    model = load_model(tiny_model)
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return load_tokenizer(tiny_model)


@pytest.fixture(scope="module")
def form(tokenizer: Any) -> AnswerForm:
    conversation = ConversationTokenizer(tokenizer, 16, ChatTemplate())
    schema = load_schema().with_vocabularies({"Crash_with": ["Car", "Car and truck", "Pedestrian"]})
    return AnswerForm(schema, conversation.answer_tokens, tokenizer.decode, END)


@pytest.fixture(scope="module")
def text_tokens(model: Any, tokenizer: Any) -> TextTokens:
    return TextTokens.of(tokenizer, model.config.text_config.vocab_size, END)


@pytest.fixture(scope="module")
def start(model: Any) -> Callable[..., Decoder]:
    def start(rows: Sequence[int] = (0, 1, 2), pixels: Tensor | None = None) -> Decoder:
        ids, mask, shown = _batch()
        size = int(mask[list(rows)].sum(dim=1).max())
        ids, mask = ids[list(rows), 30 - size :], mask[list(rows), 30 - size :]
        return Decoder(model, embed_prompt(model, ids, (shown if pixels is None else pixels)[list(rows)]), mask)

    return start


def test_same_ids_as_generate(model: Any, form: AnswerForm, start: Callable[..., Decoder]) -> None:
    ids, mask, pixels = _batch()
    answers = greedy_answers(start(), form.events.tree, 12, END)
    want = model.generate(
        input_ids=ids, attention_mask=mask, pixel_values=pixels, max_new_tokens=12, do_sample=False, eos_token_id=END,
        pad_token_id=0,
    )[:, 30:]  # fmt: skip
    for row, got in enumerate(answers.token_ids):
        expected = want[row].tolist()
        assert got == (expected[: expected.index(END)] if END in expected else expected)
    assert answers.is_finite == [True] * 3


class _Oracle:
    """Answers the asks of one row by forward passes of its whole text: no cache, no tree, no mask."""

    def __init__(self, model: Any, row: int, text_tokens: TextTokens) -> None:
        ids, mask, pixels = _batch()
        self.model, self.kinds = model, text_tokens
        self.prompt = embed_prompt(model, ids[row : row + 1, mask[row].bool()], pixels[row : row + 1])
        self.ids: list[int] = []
        self.nodes: list[int] = []

    def logits(self, ids: Sequence[int]) -> Tensor:
        embeds = self.model.get_input_embeddings()(torch.tensor([list(ids)], dtype=torch.long))
        with torch.no_grad():
            hidden = self.model.model.language_model(inputs_embeds=torch.cat([self.prompt, embeds], dim=1))
            return self.model.lm_head(hidden.last_hidden_state[0, -1])

    def __call__(self, ask: Ask) -> Any:
        self.ids += [*(self.nodes[node] for node in ask.keep), *ask.ids]
        if ask.tree is None:
            logits = self.logits(self.ids)
            barred = self.kinds.is_barred_V | (self.kinds.ends_V & (not ask.may_end))
            token = int(logits.masked_fill(barred, -torch.inf).argmax())
            return token, float(logits.log_softmax(dim=0)[token])
        tree, self.nodes = ask.tree, ask.tree.node_ids
        scores = []
        for choice in tree.choices:
            way: list[int] = []
            node = choice.node
            while node != ROOT:
                way, node = [tree.node_ids[node], *way], tree.parents[node]
            scores.append(self.logits([*self.ids, *way])[list(choice.children)].tolist())
        return scores


def _by_oracle(oracle: _Oracle, form: AnswerForm, text_tokens: TextTokens) -> FilledForm:
    writer = form.fill(ROOM, text_tokens.ends_V.tolist())
    ask = next(writer)
    while True:
        try:
            ask = writer.send(oracle(ask))
        except StopIteration as done:
            return done.value


def _same(found: FilledForm, want: FilledForm, tolerance: float = 1e-5) -> None:
    assert found.response == want.response
    assert found.event_probabilities == pytest.approx(want.event_probabilities, abs=tolerance)
    for name, probabilities in want.field_probabilities.items():
        assert found.field_probabilities[name] == pytest.approx(probabilities, abs=tolerance), name
    assert found.text_log_probabilities == pytest.approx(want.text_log_probabilities, rel=1e-4, abs=1e-4)


def test_filled_forms_equal_forward_passes_of_whole_texts(
    model: Any, form: AnswerForm, text_tokens: TextTokens, start: Callable[..., Decoder]
) -> None:
    filled = fill_forms(start(), form, [ROOM] * 3, text_tokens)
    for row, found in enumerate(filled):
        assert found is not None
        _same(found, _by_oracle(_Oracle(model, row, text_tokens), form, text_tokens))


def test_a_filled_form_is_read_back(form: AnswerForm, text_tokens: TextTokens, start: Callable[..., Decoder]) -> None:
    for found in fill_forms(start(), form, [ROOM] * 3, text_tokens):
        assert found is not None
        read = parse(form.schema, found.response)
        assert (read.event, read.values) == (found.event, dict(found.fields))
        event = form.schema.event(found.event)
        assert list(found.fields) == list(event.field_names)
        choices = {
            name for name in event.field_names if event.field(name).vocabulary or event.field(name).kind == "count"
        }
        assert set(found.field_probabilities) == choices
        assert set(found.text_log_probabilities) == set(event.field_names) - choices
        for name, probabilities in found.field_probabilities.items():
            assert sum(probabilities.values()) == pytest.approx(1, abs=1e-9)
            assert max(probabilities, key=probabilities.__getitem__) == found.fields[name]
        assert sum(found.event_probabilities.values()) == pytest.approx(1, abs=1e-9)


def test_neighbours_do_not_change_an_answer(
    form: AnswerForm, text_tokens: TextTokens, start: Callable[..., Decoder]
) -> None:
    together = fill_forms(start(), form, [ROOM] * 3, text_tokens)
    free = greedy_answers(start(), form.events.tree, 12, END)
    for row in range(3):
        (alone,) = fill_forms(start([row]), form, [ROOM], text_tokens)
        assert alone is not None and together[row] is not None
        _same(alone, together[row])
        alone_free = greedy_answers(start([row]), form.events.tree, 12, END)
        assert alone_free.token_ids[0] == free.token_ids[row]
        assert alone_free.event_probabilities[0] == pytest.approx(free.event_probabilities[row], abs=1e-5)


def test_event_probabilities_leave_the_text_as_it_is(form: AnswerForm, start: Callable[..., Decoder]) -> None:
    decoder = start()
    before = decoder.logits
    told = event_probabilities(decoder, form.events.tree)
    assert torch.equal(decoder.logits, before) and decoder.cache.get_seq_length() == 30
    assert told == event_probabilities(decoder, form.events.tree)
    greedy = greedy_answers(start(), form.events.tree, 1, END)
    assert told == greedy.event_probabilities


def test_openings_may_differ_in_their_first_token(
    tokenizer: Any, model: Any, text_tokens: TextTokens, start: Callable[..., Decoder]
) -> None:
    data = load_schema().to_dict()
    data["events"]["nearmiss"] |= {"opening": "A near-miss is shown.", "openings": ["near-miss"]}
    conversation = ConversationTokenizer(tokenizer, 16, ChatTemplate())
    form = AnswerForm(Schema.from_dict(data), conversation.answer_tokens, tokenizer.decode, END)
    assert form.events.tree.head == ()
    for row, found in enumerate(fill_forms(start(), form, [ROOM] * 3, text_tokens)):
        assert found is not None
        _same(found, _by_oracle(_Oracle(model, row, text_tokens), form, text_tokens))


def test_greedy_follows_the_best_tokens(
    form: AnswerForm, text_tokens: TextTokens, start: Callable[..., Decoder]
) -> None:
    best = fill_forms(start(), form, [ROOM] * 3, text_tokens)
    greedy = fill_forms(start(), form, [ROOM] * 3, text_tokens, greedy=True)
    for one, other in zip(best, greedy, strict=True):
        assert one is not None and other is not None
        assert one.event_probabilities == pytest.approx(other.event_probabilities, abs=1e-6)
        for name, term in other.fields.items():  # never more probable than the best one, as long as the texts agree
            if one.fields.get(name) != term:
                if name in one.field_probabilities:
                    assert one.field_probabilities[name][term] <= one.field_probabilities[name][one.fields[name]]
                break


def test_non_finite_logits_are_told_by_row(
    form: AnswerForm, text_tokens: TextTokens, start: Callable[..., Decoder]
) -> None:
    pixels = _batch()[2]
    pixels[1] = torch.nan
    assert greedy_answers(start(pixels=pixels), form.events.tree, 4, END).is_finite == [True, False, True]
    filled = fill_forms(start(pixels=pixels), form, [ROOM] * 3, text_tokens)
    sound = fill_forms(start(), form, [ROOM] * 3, text_tokens)
    assert [found is None for found in filled] == [False, True, False]
    assert filled[0] is not None and sound[0] is not None
    _same(filled[0], sound[0])


def test_all_processes_go_on_as_long_as_one_has_something_left(
    form: AnswerForm, text_tokens: TextTokens, start: Callable[..., Decoder]
) -> None:
    more = iter([True] * 3)

    def any_process(runs: bool) -> bool:
        return runs or next(more, False)

    alone = fill_forms(start([0]), form, [ROOM], text_tokens)
    waited = fill_forms(start([0]), form, [ROOM], text_tokens, any_process=any_process)
    assert alone == waited and next(more, None) is None
