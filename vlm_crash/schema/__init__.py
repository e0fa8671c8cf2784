"""What a crash record says: fields, records, response text, terminology. Imports nothing of ours but itself."""

from vlm_crash.schema.fields import UNKNOWN, Event, Field, Schema, SchemaError, load_schema
from vlm_crash.schema.records import Annotation, Answer, ParsedResponse, Prediction, VideoSample, cell_value
from vlm_crash.schema.response import parse, render, tell_event
from vlm_crash.schema.terminology import to_term

__all__ = [
    "UNKNOWN",
    "Annotation",
    "Answer",
    "Event",
    "Field",
    "ParsedResponse",
    "Prediction",
    "Schema",
    "SchemaError",
    "VideoSample",
    "cell_value",
    "load_schema",
    "parse",
    "render",
    "tell_event",
    "to_term",
]
