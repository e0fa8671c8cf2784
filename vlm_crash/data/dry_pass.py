"""A look at the tokens of every sample before the first step: no clip is read.

In: samples, and how they become tokens. Out: nothing, or one ValueError that names the clips which nothing can be
learned from, or which have no place in the model.
Must hold: what passes here cannot fail later for its texts; all processes of a run come to the same end.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from vlm_crash.data.dataset import LONGEST_S, WINDOW_REMEDY, SampleRecipe
from vlm_crash.data.tokenization import IGNORE_INDEX, TokenizedSample
from vlm_crash.schema.fields import Schema
from vlm_crash.schema.mirror import mirrored
from vlm_crash.schema.records import VideoSample
from vlm_crash.schema.response import parse

log = logging.getLogger(__name__)

_MAX_NAMED = 5
#: A clip may end so much after what the dataset says of it, which is rounded.
_ROUNDED_S = 0.01
_ANSWER = "give them an answer in the JSONL, or take them out of the dataset"


@dataclass
class _Found:
    """Clips with one thing wrong, and what one does about it."""

    remedy: str
    what: str = ""
    clips: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        more = f", and {len(self.clips) - _MAX_NAMED:,} more" if len(self.clips) > _MAX_NAMED else ""
        names = ", ".join(self.clips[:_MAX_NAMED])
        return f"{len(self.clips):,} {self.what} ({names}{more}): {self.remedy}"


def dry_pass(recipe: SampleRecipe, samples: Sequence[VideoSample], split: str, num_places: int | None) -> None:
    """Check the tokens of all samples of a split.

    Args:
        recipe: how a sample becomes tokens.
        samples: with their answers.
        split: how they are called in the message; those of "train" are looked at mirrored, too, where they may be.
        num_places: most tokens of a clip, its prompt and its answer; None: as many as there are.

    Raises:
        ValueError: some sample has more image tokens, a longer prompt or a longer whole than there are places, no
            token to learn from, an answer that was cut off, or nothing in the window.
    """
    start = time.perf_counter()
    lower = "lower --data.num_frames, or set --data.prompt short"
    num_frames = recipe.sampling.num_frames
    num_image_tokens = num_frames * recipe.tokenizer.tokens_per_frame
    if num_places is not None and num_image_tokens > num_places:
        raise ValueError(
            f"{split}: the {num_frames} frames of a clip are {num_image_tokens} image tokens, and the model has places "
            f"for {num_places} (max_position_embeddings in its config.json); {lower}"
        )
    too_long, unsupervised, cut = _Found(lower), _Found(_ANSWER), _Found("complete them, or run `prepare` again")
    start_s = recipe.sampling.start_s or 0.0
    outside = _Found(WINDOW_REMEDY, f"end before the window begins, at {start_s:g} s")
    longest = 0
    lengths = _Lengths(recipe, num_places)
    is_flipped = split == "train" and recipe.flips
    for sample in samples:
        mirror = mirrored(recipe.schema, sample) if is_flipped else None
        found = [lengths.of(one) for one in (sample, mirror) if one is not None]
        length, num_learned = max(size for size, _ in found), min(learned for _, learned in found)
        if num_places is not None and length > num_places:
            too_long.clips.append(sample.video)
            longest = max(longest, length)
        if not num_learned:
            unsupervised.clips.append(sample.video)
        elif is_cut(recipe.schema, sample):
            cut.clips.append(sample.video)
        if start_s and sample.duration_s is not None and sample.duration_s + _ROUNDED_S <= start_s:
            outside.clips.append(sample.video)
    too_long.what = (
        f"have too many tokens: a prompt and its answer takes {longest} tokens, and the model has places for "
        f"{num_places} (max_position_embeddings in its config.json)"
    )
    unsupervised.what = "have no token to learn from"
    cut.what = "have an answer that was cut off"
    wrong = [one for one in (too_long, unsupervised, cut, outside) if one.clips]
    if wrong:
        raise ValueError(f"of {len(samples):,} {split} clips, " + "; ".join(map(str, wrong)))
    took_s = time.perf_counter() - start
    log.info("%s: the tokens of %s clips are in order (looked at in %.1f s)", split, f"{len(samples):,}", took_s)


class _Lengths:
    """Tokens of samples; a question is tokenized once, as most share one."""

    def __init__(self, recipe: SampleRecipe, num_places: int | None) -> None:
        self.recipe, self.num_places = recipe, num_places
        empty = recipe.tokenizer.encode(["", ""])
        self._overhead = len(empty.input_ids_S)
        self._num_end = _num_labels(empty)
        self._prompts: dict[str, int] = {}

    def of(self, sample: VideoSample) -> tuple[int, int]:
        """Tokens of the whole, where it could be too long exactly, else at most so many; tokens to learn from."""
        recipe = self.recipe
        question, answer, unknown = recipe.texts(sample)
        tokens = recipe.tokenizer.encode(["", answer], unknown)
        num_learned = _num_labels(tokens) - self._num_end
        num_after = len(tokens.input_ids_S) - self._overhead + self._num_end
        if question not in self._prompts:
            self._prompts[question] = self._num_prompt(question, LONGEST_S)
        length = self._prompts[question] + num_after
        if self.num_places is not None and length > self.num_places and sample.duration_s is not None:
            length = self._num_prompt(question, sample.duration_s) + num_after
        return length, num_learned

    def _num_prompt(self, question: str, duration_s: float) -> int:
        sampling = self.recipe.sampling
        return len(self.recipe.tokenizer(question, sampling.num_frames, sampling.seen_s(duration_s)).input_ids_S)


def _num_labels(tokens: TokenizedSample) -> int:
    assert tokens.labels_S is not None
    return int((tokens.labels_S != IGNORE_INDEX).sum())


def is_cut(schema: Schema, sample: VideoSample) -> bool:
    """Whether the answer of a JSONL stops inside the form: what is known comes after its end, or its end is no line.

    An answer in which nothing of the form is found is of another form, and nobody can say.
    """
    if sample.answer is None or sample.event is None:
        return False
    answers = parse(schema, sample.answer, sample.event).answers
    names = list(answers)
    said = [name for name in names if answers[name].status != "missing"]
    if not said:
        return False
    last_line = sample.answer.rstrip().rpartition("\n")[2].lstrip()
    if last_line.startswith("- ") and ":" not in last_line:
        return True
    known = sample.annotation.known if sample.annotation else {}
    last, after = said[-1], names[names.index(said[-1]) + 1 :]
    end = answers[last].span
    is_half = answers[last].status == "not_understood" and end is not None and not sample.answer[end[1] :].strip()
    return any(name in known for name in after) or (is_half and bool(after))
