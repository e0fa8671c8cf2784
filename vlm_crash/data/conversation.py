"""What is asked about a clip, in words. The only home of prompt strings.

Enters: a schema, how many frames, how long the clip is. Leaves: the user's turn of the chat, with one
`<image>` placeholder per frame, and the chat template around it.

The wording of our own questions apart, every string here is one that InternVL's video checkpoints were trained or are
shown with: VideoChat-Flash (xtuner-train_internvideo2_5), the model card of InternVideo2_5_Chat_8B, and the
conversation.py of the InternVL repository.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from vlm_crash.schema.fields import UNKNOWN, Event, Field, Schema

IMAGE_PLACEHOLDER = "<image>"
PROMPTS = ("full", "short", "dataset")
#: Where the frames go in a human turn; the line break behind it goes with it, as in VideoChat-Flash's training.
_CLIP = re.compile(r"<(?:image|video)>\n?")

_INTERNLM2_SYSTEM = (
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。"
)
_INTERNVL_SYSTEM = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
)
#: Chat templates by their upstream names: system message, and what ends a turn.
TEMPLATES = {
    "internvl2_5": (_INTERNVL_SYSTEM, "<|im_end|>\n"),
    "internlm2-chat": (_INTERNLM2_SYSTEM, "<|im_end|>"),
    "Hermes-2": (_INTERNLM2_SYSTEM, "<|im_end|>"),
}


@dataclass(frozen=True)
class ChatTemplate:
    """Text around the turns of a chat.

    Args:
        system_message: what the system turn says; None: the template's own; empty leaves the whole system turn out.
        name: a key of TEMPLATES.
    """

    system_message: str | None = None
    name: str = "internvl2_5"

    def __post_init__(self) -> None:
        if self.name not in TEMPLATES:
            raise ValueError(
                f"template={self.name!r} is not one of {list(TEMPLATES)}; set --data.template to the one that the "
                "model was trained with"
            )

    @property
    def system(self) -> str:
        """The system turn, which opens a chat."""
        message = TEMPLATES[self.name][0] if self.system_message is None else self.system_message
        return f"<|im_start|>system\n{message}{self.end_of_answer}" if message else ""

    def question(self, text: str) -> str:
        """The user's turn and the head of the answer."""
        return f"<|im_start|>user\n{text}{self.end_of_answer}<|im_start|>assistant\n"

    @property
    def end_of_answer(self) -> str:
        """What ends each turn: the model learns to write it, and its first token ends generation."""
        return TEMPLATES[self.name][1]


class Preset(NamedTuple):
    """How the frames of a clip stand in the user's turn."""

    tells_duration: bool
    after_frames: str


PRESETS = {
    # VideoChat-Flash's training: the question follows the last frame on its line.
    "training": Preset(tells_duration=True, after_frames=""),
    # video_prefix of the model card of InternVideo2_5_Chat_8B.
    "card": Preset(tells_duration=False, after_frames="\n"),
    # The demo's base model was trained with this mixture of the two.
    "demo": Preset(tells_duration=True, after_frames="\n"),
}

#: How the line that tells the duration says that the frames were chosen, by name.
SAMPLINGS = {
    # VideoChat-Flash's training, whose frames are evenly spread.
    "uniform": "uniformly sampled from it",
    # Our own: no upstream checkpoint has such frames.
    "event": "sampled from it, more densely around its largest change of motion",
}


def told_sampling(rule: str, known_rule: str | None, known: str | None) -> str:
    """How a model is told that frames were chosen by a rule: one of SAMPLINGS, true of the rule.

    A model that was trained with the rule is told as it was in its training, even if that was not true: until it was
    written down, `event` was called uniform, too.

    Args:
        known_rule: the rule that the model was trained with; None: middle.
        known: how it was told then; None: uniform.

    >>> told_sampling("event", "middle", None), told_sampling("event", "event", None)
    ('event', 'uniform')
    """
    if rule == (known_rule or "middle"):
        return known or "uniform"
    return "event" if rule == "event" else "uniform"


def frame_lines(num_frames: int, duration_s: float | None, preset: str = "training", sampled: str = "uniform") -> str:
    """One line per frame, headed by the clip's duration where it is known and the preset tells it.

    >>> print(frame_lines(2, 8.0))
    The video lasts for 8.00 seconds, and 2 frames are uniformly sampled from it.
    Frame1: <image>
    Frame2: <image>
    """
    told = PRESETS[preset].tells_duration and duration_s is not None
    head = (
        f"The video lasts for {duration_s:.2f} seconds, and {num_frames} frames are {SAMPLINGS[sampled]}.\n"
        if told
        else ""
    )
    lines = "\n".join(f"Frame{i}: {IMAGE_PLACEHOLDER}" for i in range(1, num_frames + 1))
    return head + lines + PRESETS[preset].after_frames


def user_turn(
    text: str, num_frames: int, duration_s: float | None, preset: str = "training", sampled: str = "uniform"
) -> str:
    """The user's words with the frames where `<image>` or `<video>` stands in them, else in front.

    >>> user_turn("<image>\\nWhat happens?", 1, None)
    'Frame1: <image>What happens?'
    >>> user_turn("What happens?\\n<video>", 1, None)
    'What happens?\\nFrame1: <image>'

    Raises:
        ValueError: there are several places for the one clip.
    """
    before, *after = _CLIP.split(text)
    if len(after) > 1:
        raise ValueError(f"the question {text[:80]!r} has {len(after)} places for the clip; keep one <image>")
    frames = frame_lines(num_frames, duration_s, preset, sampled)
    return f"{before}{frames}{after[0]}" if after else frames + text


def read_question(file: Path) -> str:
    """A lab's own question from a UTF-8 text file, without the blanks around it.

    Raises:
        ValueError: no such file, not UTF-8, empty, or with a place for the clip in it (the preset has one).
    """
    try:
        text = file.read_text(encoding="utf-8-sig").strip()
    except OSError as error:
        raise ValueError(f"prompt_file={str(file)!r} cannot be read ({error.strerror}); give a text file") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"prompt_file={str(file)!r} is not UTF-8 ({error.reason}); save it as UTF-8") from error
    if not text:
        raise ValueError(f"prompt_file={str(file)!r} is empty; write the question into it, or set --data.prompt")
    if _CLIP.search(text):
        raise ValueError(
            f"prompt_file={str(file)!r} has a place for the clip in it; leave <image> and <video> out: --data.preset "
            "says where the frames go"
        )
    return text


def question(schema: Schema, prompt: str = "full", told_event: str | None = None) -> str:
    """The question about a clip.

    Args:
        schema: events and fields to ask for.
        prompt: "full" lists every field with its terms; "short" is one sentence, for models that were
            fine-tuned on the form and need no list.
        told_event: name of the event to give away; None (the default) lets the model tell.

    Raises:
        ValueError: prompt is not one of "full" and "short".
    """
    if prompt not in ("full", "short"):
        raise ValueError(f"prompt={prompt!r} is not one of {list(PROMPTS)}; set --data.prompt to one of them")
    told = f"The clip shows this event: {schema.event(told_event).title.lower()}. " if told_event else ""
    events = [schema.event(told_event)] if told_event else list(schema.events)
    if prompt == "short":
        return f"{told}Describe the traffic event."
    titles = " or ".join(event.title.lower() for event in events)
    task = (
        f"{told}These are frames of a dashcam clip, in order of time. Say which event it shows ({titles}) and fill in "
        "the form of that event: one line per field, as `- Label: value`, under the given headings. "
        f"Where a choice is given, use one of its terms; write {UNKNOWN} where the clip does not show it."
    )
    lines = [task]
    for event in events:
        lines += ["", f"For the event {event.title.lower()}, begin with: {event.opening}", *_form(event)]
    return "\n".join(lines)


def _form(event: Event) -> list[str]:
    lines: list[str] = []
    section = None
    for field in event.fields:
        if field.section != section:
            section = field.section
            lines.append(f"**{section}:**")
        lines.append(f"- {field.label}: {_hint(field)}")
    return lines


def _hint(field: Field) -> str:
    if field.vocabulary:
        return "one of " + ", ".join(field.vocabulary)
    return {"count": "a number", "categorical": "a short term", "text": "a short sentence"}[field.kind]
