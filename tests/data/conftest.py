"""Small clips and CSVs that the tests write themselves."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import pytest

from vlm_crash.schema import Schema, load_schema

CRASH = {
    "Light_condition": "Daylight", "Weather": "Clear", "Road_surface_condition": "Dry", "Road_type": "Highway/Freeway",
    "Road_flat": "Flat", "Lanes": "2", "Traffic_condition": "Light_traffic", "Ego_pre_avoid_movement": "Stopped",
    "Other_pre_avoid_movement": "Going_straight", "Guilty": "No", "Crash_type": "Rear_end",
    "Type_of_impact": "Front_to_rear", "Crash with": "Car", "Crash_vehicle_type": "Van",
    "Total_number_of_vehicles": "2",
    "Crash_reason": "Followed too closely", "Other_most_damaged_area": "Rear", "Crash_severity": "Injury", "Note": "",
}  # fmt: skip
NEARMISS = {name: CRASH[name] for name in list(CRASH)[:7]} | {"Guilty": "Yes", "Avoid_reason": "Braked, hard"}


@pytest.fixture(scope="session")
def schema() -> Schema:
    return load_schema()


@pytest.fixture(scope="session")
def clip_bytes(tmp_path_factory) -> Callable[[int, int], bytes]:
    """Bytes of a tiny clip: grey level and number of frames (10 a second) decide the content."""
    folder = tmp_path_factory.mktemp("clips")

    def make(level: int, num_frames: int = 5) -> bytes:
        path = folder / f"{level}_{num_frames}.mp4"
        if not path.is_file():
            with av.open(str(path), "w") as container:
                stream = container.add_stream("libx264", rate=10)
                stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
                for _ in range(num_frames):
                    frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), level, np.uint8), format="rgb24")
                    container.mux(stream.encode(frame))
                container.mux(stream.encode())
        return path.read_bytes()

    return make


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, rows: Sequence[dict[str, str]]) -> Path:
        path = tmp_path / name
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return path

    return write


@pytest.fixture
def make_event(tmp_path: Path, clip_bytes, write_csv) -> Callable[..., tuple[Path, Path]]:
    """CSV and clip folder of an event with `num` clips `1.mp4 ...` of distinct content."""

    def make(event: str, num: int, first_level: int = 0, **cells: str) -> tuple[Path, Path]:
        folder = tmp_path / event
        folder.mkdir(exist_ok=True)
        for number in range(1, num + 1):
            # The number at the end makes the contents distinct; readers do not mind trailing bytes.
            (folder / f"{number}.mp4").write_bytes(clip_bytes(100) + f"{event}{number + first_level}".encode())
        fields = CRASH if event == "crash" else NEARMISS
        return write_csv(f"{event}.csv", [{**fields, **cells} for _ in range(num)]), folder

    return make


@pytest.fixture(scope="session")
def crash_row() -> dict[str, str]:
    return dict(CRASH)


@pytest.fixture(scope="session")
def nearmiss_row() -> dict[str, str]:
    return dict(NEARMISS)
