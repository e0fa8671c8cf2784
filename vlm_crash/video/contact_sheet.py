"""Frames as pictures for a person: each of them, as it is and as the model sees it, and all on one sheet.

In: Frames. Out: a folder. Must hold: what is shown as the model's has gone through the model's own resizing.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vlm_crash.video.image_transform import resized
from vlm_crash.video.reader import Frames

_CELL, _LABEL, _GAP = 224, 20, 6  # pixels
_MOST_COLUMNS = 8


def write_frames(frames: Frames, folder: Path, image_size: int) -> None:
    """Write `frame_00.png` (as a player shows it) and `seen_00.png` (as the model sees it) ..., sheet.png, frames.json.

    Args:
        image_size: side of the model's square, in pixels.
    """
    folder.mkdir(parents=True, exist_ok=True)
    seen_FHWC = resized(frames.frames_FHWC, image_size)
    digits = len(str(len(frames.indices) - 1))
    lines = []
    for number, (index, time_s) in enumerate(zip(frames.indices, frames.times_s, strict=True)):
        names = {"file": f"frame_{number:0{digits}}.png", "seen": f"seen_{number:0{digits}}.png"}
        Image.fromarray(frames.frames_FHWC[number]).save(folder / names["file"])
        Image.fromarray(seen_FHWC[number]).save(folder / names["seen"])
        lines.append({"index": index, "time_s": round(time_s, 6), **names})
    contact_sheet(seen_FHWC, frames.indices, frames.times_s).save(folder / "sheet.png")
    info = frames.info
    said = {
        "reader": frames.reader,
        "clip": str(info.path),
        "num_frames": info.num_frames,
        "header_frames": info.header_frames,
        "damaged_packets": frames.num_damaged,
        "damaged_frames": frames.num_bad,
        "damaged_frames_shown": frames.num_bad_chosen,
        "video_streams": info.num_videos,
        "duration_s": round(info.duration_s, 6),
        "image_size": image_size,
        "frames": lines,
    }
    (folder / "frames.json").write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def contact_sheet(seen_FHWC: np.ndarray, indices: tuple[int, ...], times_s: tuple[float, ...]) -> Image.Image:
    """All frames on one picture, in rows, each with its index and time above it.

    Args:
        seen_FHWC: [F, S, S, 3] uint8 RGB.
    """
    columns = min(_MOST_COLUMNS, math.ceil(math.sqrt(len(indices))))
    rows = math.ceil(len(indices) / columns)
    width, height = _CELL + _GAP, _CELL + _LABEL + _GAP
    sheet = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for number, (frame_HWC, index, time_s) in enumerate(zip(seen_FHWC, indices, times_s, strict=True)):
        left, top = _GAP + number % columns * width, _GAP + number // columns * height
        draw.text((left, top + 2), f"frame {index}   {time_s:.3f} s", fill="black", font=font)
        sheet.paste(Image.fromarray(frame_HWC).resize((_CELL, _CELL), Image.Resampling.LANCZOS), (left, top + _LABEL))
    return sheet
