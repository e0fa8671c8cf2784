"""A clip file becomes pixels. Knows nothing of records or prompts."""

from vlm_crash.video.clip_files import VIDEO_SUFFIXES, clip_sort_key, content_hash, list_clips, readable_name
from vlm_crash.video.container import ClipInfo, UnreadableClipError
from vlm_crash.video.frame_sampling import FrameSampling, middle_frame_indices
from vlm_crash.video.reader import Frames, probe, read_frames

__all__ = [
    "VIDEO_SUFFIXES",
    "ClipInfo",
    "FrameSampling",
    "Frames",
    "UnreadableClipError",
    "clip_sort_key",
    "content_hash",
    "list_clips",
    "middle_frame_indices",
    "probe",
    "read_frames",
    "readable_name",
]
