"""A prepared dataset and its clips, copied so that a test may spoil them."""

import json
import shutil
from pathlib import Path

from vlm_crash.data.prepared import DATA_FILE, load_prepared
from vlm_crash.schema.fields import load_schema
from vlm_crash.schema.records import VideoSample


def copied(prepared: Path, folder: Path) -> Path:
    """The dataset in `folder/dataset`, whose clips lie in `folder/clips`."""
    dataset = folder / "dataset"
    shutil.copytree(prepared, dataset)
    data = json.loads((dataset / DATA_FILE).read_text())
    for event, entry in data.items():
        shutil.copytree(entry["root"], folder / "clips" / event)
        entry |= {"root": str(folder / "clips" / event), "annotation": f"{event}_ft.jsonl"}
        del entry["root_relative"]
    (dataset / DATA_FILE).write_text(json.dumps(data))
    return dataset


def samples_of(dataset: Path, split: str) -> list[VideoSample]:
    return load_prepared(dataset, load_schema())[split]


def spoil(sample: VideoSample) -> None:
    """The clip of a sample is none any more."""
    sample.path.write_bytes(b"no clip")
