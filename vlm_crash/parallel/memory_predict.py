"""Peak memory of answering clips on one GPU, by part and moment, and what to change where it does not fit.

Enters: a Shape, an AnswerSetting, a Card. Leaves: an AnswerPlan. Plain arithmetic on shapes, on the tape of
memory_tape.py and with the layers of memory_layers.py: neither torch nor a model is loaded. Keys and values are planned
as repeated for every head; torch 2.14's math kernel does without that beside a mask: a batch needs a little less.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from vlm_crash.parallel.memory_layers import Heads, attention, norm, rotated
from vlm_crash.parallel.memory_model import Parts, Step
from vlm_crash.parallel.memory_plan import GIB, Card, Peaks
from vlm_crash.parallel.memory_shapes import LABEL_TOKENS, LINE_TOKENS, TEXT_TOKENS, Setting, Shape
from vlm_crash.parallel.memory_tape import Ledger, Sized
from vlm_crash.parallel.memory_towers import Towers
from vlm_crash.parallel.memory_units import Unit

MOMENTS = ("vision", "prompt", "answer")
PARTS = ("weights", "frames", "activations", "attention", "cache", "logits")
RESERVE = "context and gaps"
#: How the language model's matrices are held; bytes of a weight, with the scales beside them (bitsandbytes: one fp32 a
#: row; NF4 with doubly quantised scales of 64 weights).
LOAD_IN: dict[str | None, float] = {None: 2.0, "8bit": 1.0, "4bit": 0.5 + 1 / 64 + 4 / (64 * 256)}
#: Places of a tree of terms that logits are made for, at most (the shipped form's largest vocabulary has fewer).
CHOICES = 16
#: Frames that a merging model merges together (models/folder.py:HicoSettings).
GROUP = 4


@dataclass(frozen=True)
class AnswerSetting:
    """How clips are answered.

    Args:
        num_frames: of a clip.
        batch_size: clips at once.
        vision_chunk: frames that go through the vision tower at once; None: all of a batch.
        load_in: None (fp16), 8bit or 4bit, of the language model's matrices.
        kernel: math, or another that makes no score matrices.
        is_form: answers are forms, whose terms are judged as trees.
        text_tokens: tokens of a prompt that no frame brings.
        line_tokens: tokens of text that each frame brings.
        answer_tokens: most tokens of an answer.
        width: bytes of a number (4: fp32, as a CPU computes).
    """

    num_frames: int
    batch_size: int = 1
    vision_chunk: int | None = None
    load_in: str | None = None
    kernel: str = "math"
    is_form: bool = True
    text_tokens: int = TEXT_TOKENS - LABEL_TOKENS
    line_tokens: int = LINE_TOKENS
    answer_tokens: int = 1024
    width: int = 2

    @property
    def training(self) -> Setting:
        """The same as a Setting of the layers' arithmetic."""
        return Setting(
            num_frames=self.num_frames, word="plain", compute_width=self.width, kernel=self.kernel,
            batch_size=self.batch_size, freeze=frozenset({"vision", "projector", "language"}),
            text_tokens=self.text_tokens, line_tokens=self.line_tokens, is_padded=self.batch_size > 1,
        )  # fmt: skip

    def num_tokens(self, shape: Shape) -> int:
        """Tokens of a prompt."""
        return self.training.num_tokens(shape)


def weight_bytes(shape: Shape, load_in: str | None, width: int = 2) -> int:
    """Bytes of all weights; of the language model's matrices as they are loaded."""
    language = shape.language
    matrices = language.layers * sum(wide * narrow for wide, narrow in language.matrices.values())
    rows = language.layers * sum(narrow for _, narrow in language.matrices.values())
    whole = sum(shape.parameters.values()) * width
    if load_in is None:
        return whole
    return whole - matrices * width + round(matrices * LOAD_IN[load_in]) + (4 * rows if load_in == "8bit" else 0)


class _Ledger(Ledger):
    """Knows the most of each part, too, whenever it was."""

    def __init__(self) -> None:
        super().__init__()
        self.most: dict[str, int] = {}

    def change(self, part: str, size: int) -> None:
        super().change(part, size)
        self.most[part] = max(self.most.get(part, 0), self.live[part])


class _Towers(Towers):
    """Layers whose keys and values stay in a cache, and whose matrices may be held in fewer bits."""

    cache: list[Sized]
    load_in: str | None

    @classmethod
    def of(cls, step: "_Answer", setting: Setting, load_in: str | None = None) -> "_Towers":
        towers = cls(step.tape, step.shape, setting, step.how, step.width)
        towers.__dict__.update(cache=step.cache, load_in=load_in)  # the dataclass is frozen
        return towers

    def _linear(self, unit: Unit, name: str, x: Sized, sizes: tuple[int, int], bias: bool) -> Sized:
        held = []
        if self.load_in == "4bit":  # a matrix in fp16, as long as it multiplies
            held = [self.tape.new(sizes[0] * sizes[1], self.width)]
        elif self.load_in == "8bit":  # numbers of 8 bits, and their products' sums of 32
            held = [self.tape.new(x.numel, 1), self.tape.new(x.numel // sizes[0] * sizes[1], 4)]
        out = super()._linear(unit, name, x, sizes, bias)
        del held
        return out

    def _language_attention(self, unit: Unit, x: Sized) -> Sized:
        tape, tower, setting = self.tape, self.shape.language, self.setting
        wide, small = tower.heads * tower.head_size, tower.kv_heads * tower.head_size
        q = self._linear(unit, "q_proj", x, (tower.width, wide), tower.qkv_bias)
        k = self._linear(unit, "k_proj", x, (tower.width, small), tower.qkv_bias)
        v = self._linear(unit, "v_proj", x, (tower.width, small), tower.qkv_bias)
        q, k = rotated(tape, q, self.width), rotated(tape, k, self.width)
        keys, values = (tape.new(given.numel, self.width, "cache") for given in (k, v))
        self.cache.extend([keys, values])
        heads = Heads(
            setting.batch_size, setting.num_tokens(self.shape), tower.heads, tower.kv_heads, tower.head_size,
            causal=True, masked=setting.is_padded,
        )  # fmt: skip
        out = attention(tape, q, keys.view(), values.view(), heads, self.how)
        return self._linear(unit, "o_proj", out, (wide, tower.width), tower.out_bias)


class _Answer(Step):
    """The forward passes of a batch of clips."""

    def __init__(self, shape: Shape, answer: AnswerSetting) -> None:
        self.answer = answer
        self.cache: list[Sized] = []
        super().__init__(shape, answer.training)
        self.tape.ledger = _Ledger()
        self.tape.keeps = False
        self.width = answer.width
        self.how = replace(self.how, autocast=False)
        self.weights = self.tape.new(weight_bytes(shape, answer.load_in, answer.width), 1, "weights")
        pixels = self.batch.pop().numel
        self.batch = [self.tape.new(pixels, 4, "frames")]

    def _units(self) -> Parts:
        """None of them: weights are there, all of the time."""
        unit = Unit(self.tape, self.sharding, self.traffic, 0, 0)
        shape = self.shape
        return Parts(unit, [unit] * shape.vision.layers, unit, unit, [unit] * shape.language.layers, unit)

    def run(self) -> _Ledger:
        ledger, tape, shape = self.tape.ledger, self.tape, self.shape
        ledger.begin(MOMENTS[0])
        visual = self._vision()
        ledger.begin(MOMENTS[1])
        embeds = self._prompt(visual)
        del visual
        setting, towers = self.setting, _Towers.of(self, self.setting, self.answer.load_in)
        tokens = setting.num_tokens(shape)
        mask = tape.new(setting.batch_size * tokens**2, 1, "attention") if setting.is_padded else None
        x = embeds.view()
        for unit in self.parts.language:
            x = towers.language_layer(unit, x)
        hidden = norm(tape, x, None, shape.language.width, self.how, rms=True)
        del x, mask
        logits = self._logits(setting.batch_size)
        del logits, hidden
        ledger.begin(MOMENTS[2])
        self._answer_on(tokens)
        assert isinstance(ledger, _Ledger)
        return ledger

    def _logits(self, rows: int) -> list[Sized]:
        """Of so many places, in fp32 beside what the head gives, and their logarithms."""
        numel = rows * self.shape.vocab_size
        low = self.tape.new(numel, self.width, "logits")
        wide = self.tape.cast(low, 4, "logits")
        del low
        return [wide, self.tape.new(numel, 4, "logits")]

    def _answer_on(self, tokens: int) -> None:
        """The last pass of the longest answer: one layer's keys and values are copied to be longer by a place."""
        tape, tower, answer = self.tape, self.shape.language, self.answer
        longest = tokens + answer.answer_tokens
        numel = answer.batch_size * longest * tower.kv_heads * tower.head_size
        places = len(self.cache)
        self.cache.clear()
        self.cache += [tape.new(numel, self.width, "cache") for _ in range(places)]
        longer = [tape.new(numel, self.width, "cache") for _ in range(2)]
        whole = answer.batch_size * longest * tower.heads * tower.head_size
        repeated = [tape.new(whole, self.width, "attention") for _ in range(2)]
        if answer.kernel == "math":  # keys and values in fp32, and keys scaled
            wide = [tape.new(whole, 4, "attention") for _ in range(3)]
            del wide
        del repeated, longer
        logits = self._logits(answer.batch_size * (CHOICES if answer.is_form else 1))
        del logits

    def _vision(self) -> Sized:
        """Visual tokens, a chunk of frames after the other (models/vision.py)."""
        tape, shape, answer = self.tape, self.shape, self.answer
        frames = answer.num_frames * answer.batch_size
        chunk = answer.vision_chunk or frames
        block = max(chunk, GROUP) if shape.merged_tokens else chunk
        features = []
        for first in range(0, frames, block):
            in_block = min(block, frames - first)
            pieces = [self._tokens(min(chunk, in_block - at)) for at in range(0, in_block, chunk)]
            joined = tape.new(sum(piece.numel for piece in pieces), self.width)
            del pieces
            if shape.merged_tokens:
                joined = self._merged(joined, in_block * shape.merged_tokens * shape.vision.width * shape.fold**2)
            features.append(_Towers.of(self, self.setting).projector(self.parts.projector, joined))
            del joined
        return tape.new(sum(feature.numel for feature in features), self.width)

    def _tokens(self, frames: int) -> Sized:
        """Tokens of some frames after pixel shuffle."""
        tape, shape, tower = self.tape, self.shape, self.shape.vision
        towers = _Towers.of(self, replace(self.setting, num_frames=frames, batch_size=1))
        if self.width != 4:
            pixels = tape.new(frames * 3 * shape.image_size**2, self.width)
        patches = tape.new(frames * shape.patches * tower.width, self.width)
        if self.width != 4:
            del pixels
        x = tape.new(frames * (shape.patches + 1) * tower.width, self.width)
        del patches
        x = tape.like(x)
        states = [x] if shape.keeps_states else []
        for unit in self.parts.vision:
            x = towers.vision_layer(unit, x)
            states += [x] if shape.keeps_states else []
        x = self._resized(x, frames * shape.patches * tower.width)
        folded = tape.copy(tape.copy(x))
        del x, states
        return tape.copy(folded)


@dataclass(frozen=True)
class AnswerPlan(Peaks):
    """What answering needs on a GPU.

    Args:
        shape: of the model.
        setting: of the run.
        card: it is to run on.
    """

    shape: Shape
    setting: AnswerSetting
    card: Card = field(default_factory=Card)

    part_names = tuple(PARTS)
    reserve_name = RESERVE

    @cached_property
    def _ledger(self) -> _Ledger:
        return _Answer(self.shape, self.setting).run()

    @cached_property
    def worst(self) -> Mapping[str, Mapping[str, int]]:
        """Bytes by part at the worst instant of each moment, without the card's reserve."""
        return {moment: self._ledger.worst[moment] for moment in MOMENTS}

    @property
    def most(self) -> dict[str, float]:
        """GiB of each part at its own worst instant; they are not there together."""
        return {**{part: self._ledger.most[part] / GIB for part in PARTS}, RESERVE: self.card.reserve_gib}


@dataclass(frozen=True)
class AnswerProposal:
    """One change more: in words with the option, the plan with it and all before it, and with it alone."""

    what: str
    plan: AnswerPlan
    alone: AnswerPlan


def answer_proposals(plan: AnswerPlan) -> list[AnswerProposal]:
    """Changes in order of their cost, each on top of those before, until it fits; none that does not lower the peak.

    The first cost time alone; fewer bits and fewer frames change answers.
    """
    found: list[AnswerProposal] = []
    for what, changes in _changes(plan.setting):
        before = found[-1].plan if found else plan
        if before.fits:
            break
        after = replace(before, setting=replace(before.setting, **changes))
        if after.peak_gib < before.peak_gib - 0.005:
            found.append(AnswerProposal(what, after, replace(plan, setting=replace(plan.setting, **changes))))
    return found


def _changes(setting: AnswerSetting) -> Iterator[tuple[str, dict[str, Any]]]:
    frames = setting.num_frames * setting.batch_size
    for chunk in (8, 4, 1):
        if (setting.vision_chunk or frames) > chunk:
            yield (
                f"{chunk} frames through the vision tower at once (--model.vision_chunk {chunk})",
                {"vision_chunk": chunk},
            )
    if setting.batch_size > 1:
        yield "one clip a batch (--data.batch_size 1)", {"batch_size": 1}
    if setting.kernel == "math":
        efficient = "attention without score matrices (--model.attention efficient; `doctor` tries whether it runs)"
        yield efficient, {"kernel": "efficient"}
    if setting.load_in is None:
        yield "the language model in 8 bits (--model.load_in 8bit)", {"load_in": "8bit"}
    if setting.load_in != "4bit":
        yield "the language model in 4 bits (--model.load_in 4bit)", {"load_in": "4bit"}
    for fewer in (32, 16, 8):
        if fewer < setting.num_frames:
            yield f"{fewer} frames a clip (--data.num_frames {fewer})", {"num_frames": fewer}
