"""A list of samples -> items. One path for training, validation and prediction.

Enters: frozen samples. Leaves: per index an Item, or a FailedItem where the clip cannot be read and the dataset is
told to go on (prediction); training and validation stop at such a clip and name it, or a filler stands for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from vlm_crash.data.collate import FailedItem, Item
from vlm_crash.data.conversation import PROMPTS, ChatTemplate, question
from vlm_crash.data.frame_options import to_remember
from vlm_crash.data.same_clips import clip_number
from vlm_crash.data.tokenization import ConversationTokenizer
from vlm_crash.schema.fields import UNKNOWN, Schema
from vlm_crash.schema.mirror import mirrored
from vlm_crash.schema.records import VideoSample
from vlm_crash.schema.response import parse, render
from vlm_crash.video.augmentation import Augmentation, Draw
from vlm_crash.video.container import OutsideWindowError
from vlm_crash.video.frame_cache import FrameCache
from vlm_crash.video.frame_sampling import FrameSampling
from vlm_crash.video.guarded import CLIP_TIMEOUT_S, UnreadableClipError, read_frames
from vlm_crash.video.image_transform import to_pixel_values
from vlm_crash.video.other_readers import OTHER_READERS
from vlm_crash.video.reader import Frames

#: Of ModelInputs: what a model's folder says by the same name.
REMEMBERED = (
    *("prompt", "question", "num_frames", "frame_rule", "frames"),
    *("system_message", "template", "preset", "told_sampling"),
)
#: No clip is taken to last longer, in seconds.
LONGEST_S = 9999.99
UNREADABLE_REMEDY = "run `check`, which keeps such clips out, or leave them out of training by --data.on_bad_clip skip"
#: Of a window, of which `check` knows nothing.
WINDOW_REMEDY = "lower --data.frames.start_s (0: from the beginning), or take such clips out of the dataset"
_READER_REMEDY = "set --data.reader auto; where that cannot read it either, "


@dataclass(frozen=True)
class ModelInputs:
    """What a model wants to be fed, as its folder says.

    Args:
        tokenizer: its fast tokenizer.
        tokens_per_frame: image tokens of one frame.
        image_size: side of its square frames, in pixels.
        prompt: the question it knows.
        question: a wording of the lab's own that it knows better; None: none.
        num_frames: frames per clip; None: the folder does not say.
        frame_rule: how frames are chosen (video/frame_sampling.py); None: middle.
        frames: further settings of the rule, and its window; None: none.
        system_message: its system turn; None: the template's own.
        template: its chat template; None: internvl2_5.
        preset: how the frames stand in its prompt; None: training.
        told_sampling: how its prompt says that they were chosen; None: uniform.
    """

    tokenizer: PreTrainedTokenizerBase
    tokens_per_frame: int
    image_size: int
    prompt: str = "full"
    question: str | None = None
    num_frames: int | None = None
    frame_rule: str | None = None
    frames: dict[str, Any] | None = None
    system_message: str | None = None
    template: str | None = None
    preset: str | None = None
    told_sampling: str | None = None

    @property
    def conversation_tokenizer(self) -> ConversationTokenizer:
        """The one that makes its prompts."""
        template = ChatTemplate(self.system_message, self.template or "internvl2_5")
        words = (self.preset or "training", self.told_sampling or "uniform")
        return ConversationTokenizer(self.tokenizer, self.tokens_per_frame, template, *words)


@dataclass(frozen=True)
class SampleRecipe:
    """How a sample becomes tokens and pixels; equal in training, validation and prediction.

    Args:
        schema: events and fields.
        tokenizer: conversation -> ids.
        sampling: which frames of a clip are taken.
        image_size: side of the square the frames are resized to, in pixels.
        prompt: "full", "short", or "dataset" (the human turn of the sample's JSONL line).
        tell_event: name the event in the question.
        blank_frames: show black frames instead of the clip, as a blind baseline.
        question: the lab's own wording, asked instead of `prompt`.
        clip_timeout_s: most seconds to read a clip; None or 0: no limit.
        augmentation: how training clips are changed; None: not at all.
        reader: what decodes it (video/reader.py).
        cache: keeps decoded frames on disk; None: each clip is decoded each time.
    """

    schema: Schema
    tokenizer: ConversationTokenizer
    sampling: FrameSampling
    image_size: int
    prompt: str
    tell_event: bool
    blank_frames: bool
    question: str | None = None
    clip_timeout_s: float | None = CLIP_TIMEOUT_S
    augmentation: Augmentation | None = None
    reader: str = "auto"
    cache: FrameCache | None = None

    def __post_init__(self) -> None:
        if self.augmentation is not None and self.augmentation.acts and self.blank_frames:
            raise ValueError("data.augment does nothing to black frames (data.blank_frames); leave one of them out")
        if self.flips and self.schema.mirror is None:
            raise ValueError(
                f"augment.flip mirrors clips, and {self.schema.source} has no table of what is then true (`mirror`, as "
                "crash.yaml has it); add one to the schema, or leave --data.augment.flip out"
            )
        if self.prompt not in PROMPTS:
            raise ValueError(f"prompt={self.prompt!r} is not one of {list(PROMPTS)}; set --data.prompt to one of them")
        if self.tell_event and (self.question is not None or self.prompt == "dataset"):
            wording = "prompt=dataset asks the JSONL's" if self.question is None else "the model is asked a lab's"
            raise ValueError(
                f"{wording} own question, so tell_event would do nothing; "
                "set --data.prompt to full or short, or leave --data.tell_event off"
            )

    @property
    def flips(self) -> bool:
        """Whether some training clips are mirrored."""
        return self.augmentation is not None and self.augmentation.flip > 0

    def item(self, sample: VideoSample, supervised: bool, draw: Draw | None = None) -> Item:
        """Read a clip and put it into tokens; of a training clip, what is drawn for it is done to it first.

        Raises:
            UnreadableClipError: the clip cannot be read.
            ValueError: the sample lacks what the recipe needs (an answer, an event to tell, a human turn).
        """
        frames = self.frames(sample.path)
        if draw is not None:
            other = mirrored(self.schema, sample) if draw.flipped else sample
            draw, sample = (replace(draw, flipped=False), sample) if other is None else (draw, other)
            frames = replace(frames, frames_FHWC=draw.apply(frames.frames_FHWC))
        return self.item_of(sample, frames, supervised)

    def frames(self, path: Path) -> Frames:
        """The chosen frames of a clip, of the model's size, not augmented; UnreadableClipError as `item`."""
        if self.cache is None:
            return self.decoded(path, to_keep=False)
        rule, timeout_s = self.sampling.to_json(), self.clip_timeout_s
        decode = partial(self.decoded, path, to_keep=True)
        return self.cache.read(path, rule, self.image_size, self.reader, decode, timeout_s)

    def decoded(self, path: Path, to_keep: bool) -> Frames:
        """The same without the cache; `to_keep`: as it keeps them (video/guarded.py)."""
        return read_frames(
            path, self.sampling, self.reader, self.clip_timeout_s, image_size=self.image_size, to_keep=to_keep
        )

    def item_of(self, sample: VideoSample, frames: Frames, supervised: bool) -> Item:
        """Put frames that have been read into tokens; ValueError as `item`."""
        asked, answer, unknown = self.texts(sample) if supervised else (self._question(sample), None, ())
        tokens = self.tokenizer(
            asked,
            num_frames=len(frames.frames_FHWC),
            # The clip's own length, not the CSV's: it is there in prediction too. Of a window, as upstream, its own.
            duration_s=self.sampling.seen_s(frames.info.duration_s),
            answer=answer,
            unsupervised=unknown,
        )
        return Item(sample, tokens.input_ids_S, tokens.labels_S, to_pixel_values(self._pixels(frames), self.image_size))

    def texts(self, sample: VideoSample) -> tuple[str, str, Sequence[tuple[int, int]]]:
        """Question and answer, and the spans of the answer that nobody is to learn; ValueError as `item`."""
        answer = self._answer(sample)
        return self._question(sample), answer, self._unknown_spans(sample, answer)

    def absent(self, sample: VideoSample, reason: str) -> Item:
        """What stands for a supervised sample whose clip cannot be read: nothing to see, and nothing to learn from."""
        num_frames, side = self.sampling.num_frames, self.image_size
        tokens = self.tokenizer(self._question(sample), num_frames, sample.duration_s, self._answer(sample))
        pixels_F3HW = torch.zeros(num_frames, 3, side, side)
        item = Item(sample, tokens.input_ids_S, tokens.labels_S, pixels_F3HW, unreadable=reason)
        return item.as_filler()

    def longest(self, samples: Sequence[VideoSample], supervised: bool) -> int:
        """Tokens of the sample with the most words, its clip not looked at (where nobody says, it lasts LONGEST_S)."""

        def words(sample: VideoSample) -> tuple[str, str | None]:
            return self._question(sample), max(self._answers(sample), key=len) if supervised else None

        samples = getattr(samples, "one_of_each", samples)  # of a ClipStore, which may have millions
        asked, answer = max(map(words, samples), key=lambda texts: len(texts[0]) + len(texts[1] or ""))
        duration_s = max((sample.duration_s or LONGEST_S for sample in samples), default=0.0)
        return len(self.tokenizer(asked, self.sampling.num_frames, duration_s, answer).input_ids_S)

    def lengths(self, samples: Sequence[VideoSample]) -> list[int]:
        """Tokens of each supervised sample, the clip not looked at: as many as the longest duration would take."""
        prompts: dict[str, int] = {}
        found = []
        for sample in samples:
            asked = self._question(sample)
            if asked not in prompts:  # mostly one for all
                prompts[asked] = len(self.tokenizer(asked, self.sampling.num_frames, LONGEST_S).input_ids_S)
            found.append(prompts[asked] + max(map(self.tokenizer.num_answer_tokens, self._answers(sample))))
        return found

    def _pixels(self, frames: Frames) -> np.ndarray:
        return np.zeros_like(frames.frames_FHWC) if self.blank_frames else frames.frames_FHWC

    @property
    def remembered(self) -> dict[str, Any]:
        """What a model that was trained by this recipe must know of it to be asked the same way again."""
        return {
            "prompt": self.prompt,
            "question": self.question,
            **to_remember(self.sampling),
            "template": self.tokenizer.template.name,
            "preset": self.tokenizer.preset,
            "told_sampling": self.tokenizer.sampled,
        }

    def _question(self, sample: VideoSample) -> str:
        if self.question is not None:
            return self.question
        if self.prompt == "dataset":
            if sample.question is None:
                raise ValueError(
                    f"{sample.video} has no human turn; prompt=dataset takes the question from a prepared folder's "
                    "JSONL: set --data.prompt to full or short"
                )
            return sample.question
        if self.tell_event and sample.event is None:
            raise ValueError(
                f"tell_event is on, but nothing says which event {sample.video} shows; give the clips by "
                "--data.crash_dir and --data.nearmiss_dir, or leave --data.tell_event off"
            )
        return question(self.schema, self.prompt, sample.event if self.tell_event else None)

    def _answer(self, sample: VideoSample) -> str:
        if sample.answer is not None:
            return sample.answer
        if sample.annotation is None:
            raise ValueError(f"{sample.video} has no annotation; training needs a folder made by `vlm_crash prepare`")
        return render(self.schema, sample.annotation)

    def _answers(self, sample: VideoSample) -> list[str]:
        """The answer; and that of the mirrored clip, where clips are mirrored."""
        mirror = mirrored(self.schema, sample) if self.flips else None
        return [self._answer(one) for one in (sample, mirror) if one is not None]

    def _unknown_spans(self, sample: VideoSample, answer: str) -> list[tuple[int, int]]:
        """Where the answer says Unknown because nobody annotated the field: not a fact to learn."""
        answers = parse(self.schema, answer, sample.event).answers.values()
        return [found.span for found in answers if found.value == UNKNOWN and found.span is not None]


class ClipDataset(Dataset[Item | FailedItem | None]):
    """Items of a list of samples.

    Args:
        samples: the clips.
        recipe: how each becomes an item.
        supervised: make labels.
        on_unreadable: "raise", "fail" (give a FailedItem and go on) or "skip" (give a filler in its place; not where
            nothing is wrong with the clip, and it ends before the window begins).
        left_out: by index, whether a clip was found unreadable before: it is not tried again; one for all processes
            that read, for "skip".
        augment_seed: of what is drawn for the clips, where the recipe changes training clips; None: they are not.

    An index may have the epoch in it (SharedSampler.stamped): what is drawn is of that epoch.
    """

    def __init__(
        self,
        samples: Sequence[VideoSample],
        recipe: SampleRecipe,
        supervised: bool,
        on_unreadable: str,
        left_out: torch.Tensor | None = None,
        augment_seed: int | None = None,
    ) -> None:
        self.samples = samples
        self.recipe = recipe
        self.supervised = supervised
        self.on_unreadable = on_unreadable
        self.left_out = left_out
        self.augment_seed = augment_seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Item | FailedItem | None:
        if index < 0 and not self.supervised:
            return None  # in prediction no process waits for another
        item = self._item(index if index >= 0 else ~index)
        return item.as_filler() if index < 0 and isinstance(item, Item) else item

    def _item(self, stamped: int) -> Item | FailedItem:
        epoch, place = divmod(stamped, len(self.samples))
        sample = self.samples[place]
        if sample.quarantined is not None and self.on_unreadable == "fail":
            return FailedItem(sample, f"quarantined: {sample.quarantined}")
        if self.left_out is not None and self.left_out[place]:
            return self.recipe.absent(sample, "it was not readable before")
        draw = None
        if self.augment_seed is not None and self.recipe.augmentation is not None:
            draw = self.recipe.augmentation.draw(self.augment_seed, epoch, clip_number(sample))
        try:
            return self.recipe.item(sample, self.supervised, draw)
        except UnreadableClipError as error:
            if self.on_unreadable == "fail":
                return FailedItem(sample, error.reason)
            is_outside = isinstance(error, OutsideWindowError)
            if self.on_unreadable == "skip" and not is_outside:
                return self.recipe.absent(sample, error.reason)
            told = _READER_REMEDY if self.recipe.reader in OTHER_READERS else ""
            remedy = WINDOW_REMEDY if is_outside else told + UNREADABLE_REMEDY
            raise UnreadableClipError(error.path, f"{error.reason}; {remedy}") from error
