"""A second `prepare` into the same folder: a clip keeps its split by what it shows, whatever its name."""

import json
import random
import shutil
from pathlib import Path

import pytest

from vlm_crash.data.prepare import prepare
from vlm_crash.data.prepared import sources_of
from vlm_crash.schema import Schema


def run(out: Path, schema: Schema, crash: tuple[Path, Path]) -> dict[str, str]:
    prepare({"crash": crash}, out, schema, question=str)
    assigned: dict[str, str] = json.loads((out / "splits.json").read_text())["assign"]
    return assigned


def test_a_renamed_clip_keeps_its_split(tmp_path, make_event, schema):
    """Every clip gets another's name or a new one, the same content twice included; nothing leaks into test."""
    out = tmp_path / "out"
    crash = make_event("crash", 30)
    shutil.copy(crash[1] / "3.mp4", crash[1] / "8.mp4")
    first = run(out, schema, crash)
    old = {number: (crash[1] / f"{number}.mp4").read_bytes() for number in range(1, 31)}
    order = random.Random(0).sample(sorted(old), len(old))
    more = make_event("crash", 36)
    for new, number in enumerate(order, start=4):  # 4 to 33; 1 to 3 and 34 to 36 are new clips
        (more[1] / f"{new}.mp4").write_bytes(old[number])
    for new in (1, 2, 3):
        (more[1] / f"{new}.mp4").write_bytes((more[1] / f"{new + 33}.mp4").read_bytes())
    for _ in range(2):
        second = run(out, schema, more)
        moved = {number for new, number in enumerate(order, 4) if second[f"crash_{new}"] != first[f"crash_{number}"]}
        assert not moved
        assert all(second[f"crash_{new}"] == second[f"crash_{new + 33}"] for new in (1, 2, 3))


def test_a_clip_that_comes_back_under_another_name_keeps_its_split(tmp_path, make_event, schema):
    out = tmp_path / "out"
    crash = make_event("crash", 20)
    first = run(out, schema, crash)
    number = next(id.split("_")[1] for id, split in first.items() if split == "test" and id != "crash_20")
    clip = (crash[1] / f"{number}.mp4").read_bytes()
    shutil.copy(crash[1] / "20.mp4", crash[1] / f"{number}.mp4")
    run(out, schema, crash)
    more = make_event("crash", 21)
    shutil.copy(more[1] / "20.mp4", more[1] / f"{number}.mp4")
    (more[1] / "21.mp4").write_bytes(clip)
    assert run(out, schema, more)["crash_21"] == "test"


def test_settings_that_are_not_given_are_those_of_the_earlier_run(tmp_path, make_event, schema):
    crash = make_event("crash", 10)
    out = tmp_path / "out"
    given = {"seed": 3, "fractions": (0.5, 0.2, 0.3), "group_column": "Note"}
    prepare({"crash": crash}, out, schema, **given, question=str)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    prepare({"crash": crash}, out, schema, question=str)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    prepare({"crash": crash}, out, schema, **given, question=str)
    with pytest.raises(ValueError, match=r"group_column=Lanes contradicts .* made with group_column=Note"):
        prepare({"crash": crash}, out, schema, group_column="Lanes", question=str)
    settings = json.loads((out / "splits.json").read_text())
    (out / "splits.json").write_text(json.dumps({**settings, "fractions": "most"}))
    with pytest.raises(ValueError, match="restore or delete the file"):
        prepare({"crash": crash}, out, schema, question=str)


def test_the_csv_beside_a_copied_dataset_is_its_own(tmp_path, make_event, schema):
    """Its place relative to the dataset goes before the old place, which is there still."""
    place = tmp_path / "a"
    place.mkdir()
    csv, clips = make_event("crash", 3)
    source = Path(shutil.copy(csv, place))
    prepare({"crash": (source, clips)}, place / "out", schema, question=str)
    shutil.copytree(place, tmp_path / "b")
    assert sources_of(place / "out")["crash"].samefile(source)
    assert sources_of(tmp_path / "b" / "out")["crash"].samefile(tmp_path / "b" / source.name)
    (tmp_path / "b" / source.name).unlink()
    assert sources_of(tmp_path / "b" / "out")["crash"] == source
