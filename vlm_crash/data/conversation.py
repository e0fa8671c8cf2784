"""What is asked about a clip, in words. The only home of prompt strings.

Enters: a schema, how many frames, how long the clip is. Leaves: the user's turn of the chat, with one
`<image>` placeholder per frame, and the chat template around it.

The frame lines ("The video lasts ...", "Frame1: <image>") are the format InternVL's video checkpoints were
trained with (VideoChat-Flash, xtuner-train_internvideo2_5); the wording of the questions is ours.
"""

from dataclasses import dataclass

from vlm_crash.schema.fields import UNKNOWN, Event, Field, Schema

IMAGE_PLACEHOLDER = "<image>"
PROMPTS = ("full", "short", "dataset")

#: System message of the internvl2_5 template (InternVL repository, conversation.py).
INTERNVL2_5_SYSTEM = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
)


@dataclass(frozen=True)
class ChatTemplate:
    """Text around the turns of a chat, in the `internvl2_5` layout.

    Args:
        system_message: what the system turn says; empty leaves the whole system turn out.
    """

    system_message: str = INTERNVL2_5_SYSTEM

    def prompt(self, question: str) -> str:
        """Everything before the answer."""
        system = f"<|im_start|>system\n{self.system_message}<|im_end|>\n" if self.system_message else ""
        return f"{system}<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"

    @property
    def end_of_answer(self) -> str:
        """What the model learns to write after its answer; the first token of it ends generation."""
        return "<|im_end|>\n"


def frame_lines(num_frames: int, duration_s: float | None) -> str:
    """One line per frame, headed by the clip's duration where it is known.

    >>> print(frame_lines(2, 8.0))
    The video lasts for 8.00 seconds, and 2 frames are uniformly sampled from it.
    Frame1: <image>
    Frame2: <image>
    <BLANKLINE>
    """
    head = (
        ""
        if duration_s is None
        else f"The video lasts for {duration_s:.2f} seconds, and {num_frames} frames are uniformly sampled from it.\n"
    )
    return head + "".join(f"Frame{i}: {IMAGE_PLACEHOLDER}\n" for i in range(1, num_frames + 1))


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
