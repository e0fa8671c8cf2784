"""A dataset's own questions that give the answer away.

In: samples by split, the schema. Out: a warning in the log, where there are such.
"""

import logging
import re
from collections import Counter
from itertools import chain

from vlm_crash.schema.fields import Schema
from vlm_crash.schema.records import VideoSample
from vlm_crash.schema.wording import words

log = logging.getLogger(__name__)


def warn_of_told_events(samples: dict[str, list[VideoSample]], schema: Schema) -> None:
    """Say it where the dataset's own question names the clip's event, and no other: the answer is given away."""
    wordings = [(text, event.name) for event in schema.events for text in (event.title, *event.openings)]
    events = {" ".join(words(text)): name for text, name in wordings}
    # The longest first: "near crash" is no crash.
    pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, sorted(events, key=len, reverse=True)))})\b")
    told: Counter[str] = Counter()
    for sample in chain.from_iterable(samples.values()):
        named = {events[found] for found in pattern.findall(" ".join(words(sample.question or "")))}
        if len(schema.events) > 1 and named == {sample.event}:
            told[str(sample.event)] += 1
    if told:
        log.warning(
            "the human turn of %d clips names their event (%s), so the model is told it; set --data.prompt to full or "
            "short if it is to find out",
            told.total(), ", ".join(f"{event}: {count}" for event, count in told.items()),
        )  # fmt: skip
