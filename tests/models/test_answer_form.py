"""The form in tokens: as training sees it, with tokenizers that draw their borders in different places."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from vlm_crash.data.conversation import ChatTemplate
from vlm_crash.data.tokenization import ConversationTokenizer
from vlm_crash.models.answer_form import AnswerForm, Ask, FilledForm
from vlm_crash.models.text_tokens import TextTokens
from vlm_crash.models.tokenizers import load_tokenizer
from vlm_crash.schema.fields import UNKNOWN, load_schema
from vlm_crash.schema.records import Annotation
from vlm_crash.schema.response import parse, render

PARITY = Path(__file__).parents[1] / "parity" / "checkpoints"
MINE = Path(__file__).parents[1] / "schema" / "mine.yaml"
#: How Qwen2 cuts texts before it looks for pairs: signs take the line breaks after them.
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
IMAGE = ["<img>", "<IMG_CONTEXT>", "</img>"]
RECORDS = [
    Annotation.of(load_schema(), "crash", {
        "Weather": "Rainy", "Lanes": "12", "Crash_vehicle_type": "Van (white)", "Crash_with": "Car",
        "Crash_reason": "The van braked (hard).", "Note": "Nobody was hurt!", "Guilty": "Both",
    }),
    Annotation.of(load_schema(), "nearmiss", {"Lanes": "2", "Avoid_reason": "A dog ran across: 2 m ahead"}),
]  # fmt: skip


def _trained(tmp_path: Path) -> Any:
    """A byte-level tokenizer with Qwen2's cuts, trained on answers: it has tokens such as ".\\n" and "**\\n"."""
    plain = Tokenizer(models.BPE())
    cuts = [pre_tokenizers.Split(Regex(QWEN2), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    plain.pre_tokenizer, plain.decoder = pre_tokenizers.Sequence(cuts), decoders.ByteLevel()
    special = [*IMAGE, "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=special, initial_alphabet=alphabet)
    plain.train_from_iterator([render(load_schema(), record) for record in RECORDS] * 20, trainer)
    plain.save(str(tmp_path / "tokenizer.json"))
    return PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), eos_token="<|im_end|>")


@pytest.fixture(scope="module", params=["form", "qwen2", "internlm2", "trained"])
def tokenizer(request: pytest.FixtureRequest, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    if request.param == "trained":
        return _trained(tmp_path_factory.mktemp("tokenizer"))
    return load_tokenizer(tiny_model if request.param == "form" else next(PARITY.glob(f"{request.param}*")))


class _Writer:
    """Writes a record where a model would: the record's terms and texts, token by token."""

    def __init__(self, tokenizer: Any, schema: Any, record: Annotation, room: int = 200) -> None:
        conversation = ConversationTokenizer(tokenizer, 16, ChatTemplate())
        self.end = conversation.end_token_id
        self.decode = lambda ids: tokenizer.decode(ids, skip_special_tokens=True)
        self.form = AnswerForm(schema, conversation.answer_tokens, self.decode, self.end)
        self.want = [*(token for token, _ in conversation.answer_tokens(render(schema, record))), self.end]
        self.ends = TextTokens.of(tokenizer, len(tokenizer), self.end).ends_V.tolist()
        self.record, self.room = record, room
        self.ids: list[int] = []

    def write(self) -> FilledForm:
        writer = self.form.fill(self.room, self.ends)
        ask, nodes = next(writer), []
        terms = iter([self.record.event, *self.record.values.values()])
        while True:
            self.ids += [*(nodes[node] for node in ask.keep), *ask.ids]
            try:
                if ask.tree is None:
                    assert self.want[: len(self.ids)] == self.ids
                    ask = writer.send((self.want[len(self.ids)], -1.0))
                else:
                    nodes = ask.tree.node_ids
                    ask = writer.send(self._scores(ask, terms))
            except StopIteration as done:
                return done.value

    def _scores(self, ask: Ask, terms: Iterator[str]) -> list[list[float]]:
        """High where the wanted term's way goes on."""
        assert ask.tree is not None
        place = ask.tree.terms.index(next(term for term in terms if term in ask.tree.terms))
        way = dict(ask.tree._ways[place])
        return [
            [100.0 * (way.get(n) == child) for child in range(len(c.children))] for n, c in enumerate(ask.tree.choices)
        ]


def _filled_schema() -> Any:
    return load_schema().with_vocabularies({
        "Crash_with": ["Car", "Car and van", "Pedestrian"], "Crash_vehicle_type": ["Van", "Van (white)", "Truck"],
        "Ego_pre_avoid_movement": ["Front"], "Other_pre_avoid_movement": ["Front"],
        "Other_most_damaged_area": ["Front"],
    })  # fmt: skip


@pytest.mark.parametrize("event", [0, 1])
def test_tokens_are_those_of_training(tokenizer: Any, event: int) -> None:
    schema = _filled_schema()
    values = {**RECORDS[event].values}
    for name, value in values.items():
        field = schema.event(RECORDS[event].event).field(name)
        if value == UNKNOWN and field.kind != "text":
            values[name] = field.vocabulary[-1] if field.vocabulary else "7"
        elif value == UNKNOWN:
            values[name] = "Seen from behind."
    record = Annotation(RECORDS[event].event, values)
    writer = _Writer(tokenizer, schema, record)
    filled = writer.write()
    assert filled.response == render(schema, record)
    assert dict(filled.fields) == values
    # The last value needs no further pass: what was fed is the beginning, up to what the model was asked last.
    assert writer.ids == writer.want[: len(writer.ids)]
    assert writer.decode(writer.ids).startswith(filled.response[: filled.response.rindex(":")])
    given, texts = writer.form.sizes[record.event]
    long = sum(len(writer.form.tokens(values[f.name])) for f in schema.event(record.event).fields if f.kind == "text")
    assert len(writer.want) <= given + long and texts == (2 if event == 0 else 1)


def test_any_schema_is_a_form(tokenizer: Any) -> None:
    schema = load_schema(MINE)
    for event in schema.events:
        values = {}
        for field in event.fields:
            terms = {"count": "3", "text": "Something (odd)."}
            values[field.name] = field.vocabulary[0] if field.vocabulary else terms.get(field.kind, "whatever")
        writer = _Writer(tokenizer, schema, Annotation(event.name, values))
        filled = writer.write()
        assert parse(schema, filled.response).event == event.name
        assert dict(filled.fields) == values and writer.ids == writer.want[: len(writer.ids)]


def test_a_text_is_cut_at_its_room(tokenizer: Any) -> None:
    record = Annotation.of(load_schema(), "nearmiss", {"Avoid_reason": "A dog ran across the road ahead of it"})
    schema = load_schema()
    values = {name: value if value != UNKNOWN else "2" for name, value in record.values.items()}
    for field in schema.event("nearmiss").fields:
        if field.vocabulary:
            values[field.name] = field.vocabulary[0]
    writer = _Writer(tokenizer, schema, Annotation("nearmiss", values), room=2)
    filled = writer.write()
    assert filled.cut == ("Avoid_reason",)
    assert "A dog ran across the road ahead of it".startswith(filled.fields["Avoid_reason"])
    assert parse(schema, filled.response).values == dict(filled.fields)


@pytest.mark.parametrize("said", ["**", "* *", "__", "- -"])
def test_a_text_in_which_nothing_can_be_read_is_unknown(tokenizer: Any, said: str) -> None:
    form = _Writer(tokenizer, load_schema(), RECORDS[1]).form
    event = form.schema.event("nearmiss")
    slot = form.slots["nearmiss"][-1]
    readable = form._readable(event, slot, said)
    assert parse(form.schema, f"{event.opening}\n{slot.label} {readable}").values["Avoid_reason"] == readable


def test_room_for_texts(tokenizer: Any) -> None:
    form = _Writer(tokenizer, _filled_schema(), RECORDS[0]).form
    assert form.text_room(form.most(10), 64) == 10
    assert form.text_room(form.most(100), 64) == 64
    assert form.text_room(form.least - 1, 64) == 0 and form.text_room(form.least, 64) == 1
