"""Ways to answer a clip: as the scripts did that vlm_crash succeeds, and as CrashVLM does.

Enters: a system, clips (a file to read, or pixels that are there). Leaves: a Run of each way: seconds by part, forward
passes of the language model, answers. All ways see the same prompts and the same weights; those that write freely are
led to the answers of the form (Script), so that all give the same fields with the same texts, whatever the weights.
"""

# Suffixes: F frames, S sequence, H height, W width.

import copy
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from decord import VideoReader, cpu
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.functional import InterpolationMode
from transformers import InternVLForConditionalGeneration, LogitsProcessor, LogitsProcessorList

from vlm_crash.data.collate import Collator, Item
from vlm_crash.data.conversation import question
from vlm_crash.data.datamodule import CrashDataModule
from vlm_crash.data.dataset import SampleRecipe
from vlm_crash.lightning_module import CrashVLM
from vlm_crash.models.decoding import Decoder
from vlm_crash.models.vision import embed_prompt
from vlm_crash.schema.records import VideoSample

#: ImageNet's, as the scripts normalised.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Way:
    """How clips are answered.

    Args:
        key: its letter.
        what: in words.
        decoding: CrashVLM's; None: transformers' generate, eager attention, the scripts' own frames.
        is_batched: all clips at once, not one by one.
        least_tokens: fewest new tokens (generate's min_new_tokens).
        is_led: to the form's answers; False: it writes what it likes.
    """

    key: str
    what: str
    decoding: str | None
    is_batched: bool
    least_tokens: int = 0
    is_led: bool = False


def ways(least_tokens: int, is_random: bool = False) -> list[Way]:
    """All of them, the old ones first.

    Args:
        is_random: of random weights, which end no answer by themselves.
    """
    free = Way("a, free", "generate, writes what it likes and stops by itself", None, False)
    return [
        *([] if is_random else [free]),
        Way("a", "generate, stops after the answer", None, False, is_led=True),
        Way(f"a{least_tokens}", f"generate, {least_tokens} tokens at least", None, False, least_tokens, is_led=True),
        Way("b", "free, batched", "free", True, is_led=True),
        Way("c", "schema-constrained, one by one", "best_term", False),
        Way("d", "schema-constrained, batched", "best_term", True),
    ]


class Script(LogitsProcessor):
    """Leads free decoding to given answers: the model makes its logits for each token, and the token is the answer's.

    Args:
        ids: tokens of each row's answer.
        end_token_id: ends an answer.
        line_break: what fills an answer up, which changes none of its fields.
        least: fewest new tokens.
    """

    def __init__(self, ids: Sequence[Sequence[int]], end_token_id: int, line_break: int, least: int = 0) -> None:
        self.ids, self.end, self.line_break, self.least = ids, end_token_id, line_break, least
        self._step = 0

    def __call__(self, input_ids: Any, scores: Tensor) -> Tensor:
        """Logits [B, V] of the next step (names of transformers')."""
        for row, answer in enumerate(self.ids):
            after = self.end if self._step >= self.least else self.line_break
            scores[row] = -1e9
            scores[row, answer[self._step] if self._step < len(answer) else after] = 0
        self._step += 1
        return scores

    @contextmanager
    def of_decoder(self) -> Iterator[None]:
        """CrashVLM's free decoding follows the script, as long as this is entered."""
        own = Decoder.logits
        with patch.object(Decoder, "logits", property(lambda decoder: self(None, own.__get__(decoder)))):
            yield


@dataclass
class Clip:
    """A clip to answer: a file; with `item`, its pixels and prompt are there already."""

    sample: VideoSample
    item: Item | None = None


@dataclass
class Run:
    """What a way took for all of its clips.

    Args:
        loading: seconds to read and resize frames, and to make prompts.
        vision: seconds of vision tower, merging and projector.
        prefill: seconds of each prompt's pass through the language model.
        decode: seconds of everything after it.
        passes: forward passes of the language model, a batch's counted once.
        clips: that were answered.
        tokens: of the answers.
        texts: of the answers.
    """

    loading: float = 0.0
    vision: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0
    passes: int = 0
    clips: int = 0
    tokens: int = 0
    texts: tuple[str, ...] = ()

    @property
    def language(self) -> float:
        return self.prefill + self.decode

    @property
    def seconds(self) -> float:
        return self.loading + self.vision + self.language


class Watch:
    """Counts and times the parts of a model by hooks: every batch goes through vision, then language.

    Args:
        model: that is watched, as long as the Watch is entered.
        run: that is added to.
    """

    def __init__(self, model: InternVLForConditionalGeneration, run: Run) -> None:
        self.model, self.run = model, run
        self._vision_from: float | None = None
        self._vision_to = self._pass_from = 0.0

    def __enter__(self) -> "Watch":
        parts: Any = self.model.model
        self._handles = [
            parts.vision_tower.register_forward_pre_hook(self._see),
            parts.multi_modal_projector.register_forward_hook(self._saw),
            parts.language_model.register_forward_pre_hook(self._speak),
            parts.language_model.register_forward_hook(self._spoke),
        ]
        self._from = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        """What is neither vision nor a prompt's pass is decoding: heads, choices, copies of the cache."""
        self.run.decode += time.perf_counter() - self._from - self._counted
        for handle in self._handles:
            handle.remove()

    _counted = 0.0

    def _see(self, *_: object) -> None:
        self._vision_from = self._vision_from or time.perf_counter()

    def _saw(self, *_: object) -> None:
        self._vision_to = time.perf_counter()

    def _speak(self, *_: object) -> None:
        self.run.passes += 1
        self._pass_from = time.perf_counter()

    def _spoke(self, *_: object) -> None:
        if self._vision_from is None:
            return
        prefill, vision = time.perf_counter() - self._pass_from, self._vision_to - self._vision_from
        self.run.prefill += prefill
        self.run.vision += vision
        self._counted += prefill + vision
        self._vision_from = None


def answer(system: "System", clips: Sequence[Clip], way: Way) -> Run:
    """Answer clips in one of the ways; led ones need `system.answers`, which a schema-constrained one leaves there."""
    run = Run(clips=len(clips))
    groups = [list(clips)] if way.is_batched else [[clip] for clip in clips]
    with torch.inference_mode():
        for group in groups:
            script = system.script(group, way.least_tokens) if way.is_led else None
            if way.decoding is None:
                _generate(system, group[0], way.least_tokens, script, run)
            elif script is not None:
                with script.of_decoder():
                    _predict(system.modules[way.decoding], system.recipe, group, run)
            else:
                _predict(system.modules[way.decoding], system.recipe, group, run)
    if way.decoding == "best_term":
        system.answers |= {clip.sample.id: text for clip, text in zip(clips, run.texts, strict=True)}
    return run


def _predict(module: CrashVLM, recipe: SampleRecipe, clips: Sequence[Clip], run: Run) -> None:
    start = time.perf_counter()
    items = [clip.item or recipe.item(clip.sample, supervised=False) for clip in clips]
    batch = Collator(recipe.tokenizer.end_token_id, "left")(items)
    run.loading += time.perf_counter() - start
    with Watch(module.model, run):
        found = module.answer(batch)
    texts = tuple(prediction.response for prediction in found)
    run.texts += texts
    run.tokens += sum(len(module.tokenizer(text).input_ids) for text in texts)


def _generate(system: "System", clip: Clip, least_tokens: int, script: Script | None, run: Run) -> None:
    """The old way, for one clip."""
    start = time.perf_counter()
    recipe, model = system.recipe, system.eager
    item = clip.item or old_item(recipe, clip.sample)
    run.loading += time.perf_counter() - start
    ids_1S = item.input_ids_S[None]
    with Watch(model, run):
        ids: Tensor = model.generate(  # type: ignore[misc]
            inputs_embeds=embed_prompt(model, ids_1S, item.pixel_values_F3HW),
            attention_mask=torch.ones_like(ids_1S),
            max_new_tokens=system.most_tokens,
            min_new_tokens=least_tokens or None,
            do_sample=False,
            logits_processor=LogitsProcessorList([] if script is None else [script]),
            eos_token_id=recipe.tokenizer.end_token_id,
            pad_token_id=recipe.tokenizer.end_token_id,
        )[0]
        text = str(system.tokenizer.decode(ids, skip_special_tokens=True))
    run.tokens += len(ids)
    run.texts += (text,)


# ------------------------------------------------------------------------------------------------- the scripts' frames


def old_item(recipe: SampleRecipe, sample: VideoSample) -> Item:
    """A clip as the scripts loaded it: decord, frames from end to end, each resized by PIL; the recipe's prompt."""
    frames_FHWC, duration_s = old_frames(sample.path, recipe.sampling.num_frames)
    size = recipe.image_size
    transform = v2.Compose(
        [
            v2.Lambda(lambda image: image.convert("RGB")),
            v2.Resize((size, size), interpolation=InterpolationMode.BICUBIC),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    pixels_F3HW = torch.stack([transform(Image.fromarray(frame)) for frame in frames_FHWC])
    asked = question(recipe.schema, recipe.prompt)
    ids_S = recipe.tokenizer(asked, recipe.sampling.num_frames, duration_s).input_ids_S
    return Item(sample, ids_S, None, pixels_F3HW)


def old_frames(path: Path, num_frames: int) -> tuple[np.ndarray, float]:
    """Frames [F, H, W, 3] from the first to the last, and the clip's seconds."""
    reader = VideoReader(str(path), ctx=cpu(0), num_threads=1)
    indices = np.linspace(0, len(reader) - 1, num_frames, dtype=int)
    return reader.get_batch(indices).asnumpy(), len(reader) / float(reader.get_avg_fps())


# -------------------------------------------------------------------------------------------------------------- systems


@dataclass
class System:
    """One model with all ways to answer; they share its weights.

    Args:
        recipe: how a clip becomes a prompt.
        modules: CrashVLM by decoding.
        eager: the model as generate had it.
        most_tokens: of generate and of a free answer.
        answers: of the form, by clip.
    """

    recipe: SampleRecipe
    modules: dict[str, CrashVLM]
    eager: InternVLForConditionalGeneration
    most_tokens: int
    answers: dict[str, str] = field(default_factory=dict)

    @property
    def tokenizer(self) -> Any:
        return self.recipe.tokenizer.tokenizer

    def script(self, clips: Sequence[Clip], least_tokens: int) -> Script:
        """That leads to the answers of the form to these clips."""
        ids = [self.tokenizer(self.answers[clip.sample.id]).input_ids for clip in clips]
        (line_break,) = self.tokenizer("\n").input_ids
        return Script(ids, self.recipe.tokenizer.end_token_id, line_break, least_tokens)


def system_for(
    folder: Path, init: str, num_frames: int, most_tokens: int, most_text: int, prompt: str | None = None
) -> System:
    """All ways of a model folder.

    Args:
        most_tokens: of generate, and of a free answer.
        most_text: of a text field of a form.
    """
    modules: dict[str, CrashVLM] = {}
    for decoding, most in {"free": most_tokens, "best_term": most_text}.items():
        module = module_for(folder, init, decoding, most)
        if modules:
            module.model = modules["free"].model
        modules[decoding] = module
    data = CrashDataModule(num_frames=num_frames, prompt=prompt)
    data.connect(module.inputs)
    assert data.recipe is not None
    for module in modules.values():
        module.conversation = data.recipe.tokenizer
    return System(data.recipe, modules, with_eager_attention(module.model), most_tokens)


def module_for(folder: Path, init: str, decoding: str, most_tokens: int) -> CrashVLM:
    """A CrashVLM that answers."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"decoding": decoding, "max_new_tokens": most_tokens}
    return CrashVLM(folder, init=init, embedder=None, attention="auto", **options).eval()


def with_eager_attention(model: InternVLForConditionalGeneration) -> InternVLForConditionalGeneration:
    """Another model of the same tensors."""
    shared: dict[int, Any] = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    eager: InternVLForConditionalGeneration = copy.deepcopy(model, shared)
    eager.set_attn_implementation("eager")
    return eager.eval()


def random_clips(recipe: SampleRecipe, num_clips: int) -> list[Clip]:
    """Clips of noise with the prompt of a real one: what they take does not depend on what they show."""
    size, frames = recipe.image_size, recipe.sampling.num_frames
    clips = []
    for number in range(num_clips):
        ids_S = recipe.tokenizer(question(recipe.schema, recipe.prompt), frames, duration_s=8.0).input_ids_S
        name = f"{number}.mp4"
        sample = VideoSample(f"clip:{name}", name, Path(name), None, None, None)
        clips.append(Clip(sample, Item(sample, ids_S, None, torch.randn(frames, 3, size, size))))
    return clips
