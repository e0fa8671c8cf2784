"""A clip file becomes pixels. Knows nothing of records or prompts."""

from vlm_crash.video.frame_sampling import middle_frame_indices
from vlm_crash.video.reader import (
    VIDEO_SUFFIXES,
    ClipInfo,
    Frames,
    UnreadableClipError,
    content_hash,
    list_clips,
    probe,
    read_frames,
)

__all__ = [
    "VIDEO_SUFFIXES",
    "ClipInfo",
    "Frames",
    "UnreadableClipError",
    "content_hash",
    "list_clips",
    "middle_frame_indices",
    "probe",
    "read_frames",
]
