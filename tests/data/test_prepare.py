import csv
import errno
import json
import shutil
from pathlib import Path

import pytest

from vlm_crash.data import files
from vlm_crash.data.prepare import load_prepared, load_vocabularies, prepare
from vlm_crash.data.problems import InputProblems
from vlm_crash.schema import Schema, render

FILES = ["crash_ft.jsonl", "dataset.json", "diy_ft_data.json", "nearmiss_ft.jsonl", "problems.csv", "splits.json"]


def ask(event: str | None) -> str:
    return f"What happens? ({event})"


def run(out: Path, schema: Schema, crash=None, nearmiss=None, **options):
    sources = {event: source for event, source in (("crash", crash), ("nearmiss", nearmiss)) if source}
    return prepare(sources, out, schema, **{"question": ask, **options})


def problem_rows(out: Path) -> list[tuple[str, str, str]]:
    with (out / "problems.csv").open(encoding="utf-8", newline="") as file:
        return [(row["row"], row["video"], row["problem"]) for row in csv.DictReader(file)]


def assign(out: Path) -> dict[str, str]:
    return json.loads((out / "splits.json").read_text())["assign"]


def test_both_events_end_to_end(tmp_path, make_event, schema):
    out = tmp_path / "out"
    report = run(out, schema, make_event("crash", 12), make_event("nearmiss", 8), seed=3)
    assert sorted(p.name for p in out.iterdir()) == FILES
    assert report.num_clips == {"crash": 12, "nearmiss": 8}
    assert (report.num_left_out, report.num_problems) == (0, 0)
    assert {split: sum(events.values()) for split, events in report.num_by_split.items()} == {
        "train": 14, "val": 2, "test": 4,
    }  # fmt: skip
    splits = load_prepared(out, schema)
    samples = [sample for split in splits.values() for sample in split]
    assert len(samples) == 20
    assert len({sample.id for sample in samples}) == 20
    for sample in samples:
        assert sample.path.is_file()
        assert sample.duration_s == pytest.approx(0.5)  # the clip's own: 5 frames, 10 a second
        assert sample.answer == render(schema, sample.annotation)
        assert sample.question == f"<image>\nWhat happens? ({sample.event})"
        assert sample in splits[assign(out)[sample.id]]


def test_upstream_can_read_it(tmp_path, make_event, schema, monkeypatch):
    """Upstream opens `annotation` and `root` as they stand and wants `length`, `repeat_time`, `data_augment`."""
    monkeypatch.chdir(tmp_path)
    run(Path("out"), schema, make_event("crash", 3))
    monkeypatch.chdir("/")
    data = json.loads((tmp_path / "out" / "diy_ft_data.json").read_text())
    assert list(data) == ["crash"]
    entry = data["crash"]
    assert (entry["length"], entry["repeat_time"], entry["data_augment"]) == (3, 1, False)
    assert entry["video_read_type"] == "decord"
    for line in Path(entry["annotation"]).read_text().splitlines():
        item = json.loads(line)
        assert (Path(entry["root"]) / item["video"]).is_file()
        assert [turn["from"] for turn in item["conversations"]] == ["human", "gpt"]
        assert item["conversations"][0]["value"].startswith("<image>\n")
        assert isinstance(item["duration"], float)


def test_one_event_alone(tmp_path, make_event, schema):
    report = run(tmp_path / "out", schema, nearmiss=make_event("nearmiss", 2))
    assert report.num_clips == {"nearmiss": 2}
    assert "crash_ft.jsonl" not in [p.name for p in (tmp_path / "out").iterdir()]


def test_a_rerun_without_an_event_leaves_nothing_of_it(tmp_path, make_event, schema, caplog):
    out = tmp_path / "out"
    crash = make_event("crash", 3)
    run(out, schema, crash, make_event("nearmiss", 2))
    others = out / "mine_ft.jsonl"
    others.touch()
    run(out, schema, crash)
    assert not (out / "nearmiss_ft.jsonl").exists()
    assert others.exists()
    assert "nearmiss_ft.jsonl is removed" in caplog.text


def test_another_schema_than_the_one_of_the_dataset(tmp_path, make_event, schema):
    out = tmp_path / "out"
    run(out, schema, make_event("crash", 3))
    field = {"label": "Depth", "section": "Water", "kind": "text"}
    event = {"title": "Flood", "opening": "A flood.", "openings": ["flood"], "fields": ["Depth"]}
    other = Schema.from_dict({"events": {"flood": event}, "fields": {"Depth": field}})
    with pytest.raises(
        ValueError, match=r"prepared with another schema.*of the events flood\); give --data.schema"
    ) as e:
        load_prepared(out, other)
    assert "\n" not in str(e.value)


def test_same_content_stays_together_and_is_named_across_events(tmp_path, make_event, schema):
    crash, nearmiss = make_event("crash", 20), make_event("nearmiss", 20)
    for source, target in ((1, 7), (1, 13), (2, 19)):
        shutil.copy(crash[1] / f"{source}.mp4", crash[1] / f"{target}.mp4")
    shutil.copy(crash[1] / "3.mp4", nearmiss[1] / "4.mp4")
    for seed in range(4):
        out = tmp_path / f"out{seed}"
        report = run(out, schema, crash, nearmiss, seed=seed)
        of = assign(out)
        assert len(of) == 40
        assert of["crash_1"] == of["crash_7"] == of["crash_13"]
        assert of["crash_2"] == of["crash_19"]
        assert of["crash_3"] == of["nearmiss_4"]
    assert report.num_problems == 1
    ((row, video, problem),) = problem_rows(out)
    assert (row, video) == ("4", "4.mp4")
    assert "the same content as 3.mp4 of crash" in problem


def test_group_column(tmp_path, make_event, schema, write_csv, crash_row):
    _, folder = make_event("crash", 20)
    path = write_csv("crash.csv", [{**crash_row, "Trip": f"t{i % 8}" if i else ""} for i in range(20)])
    out = tmp_path / "out"
    run(out, schema, (path, folder), group_column="trip")
    of = assign(out)
    for trip in range(8):
        assert len({of[f"crash_{i + 1}"] for i in range(1, 20) if i % 8 == trip}) == 1
    with pytest.raises(InputProblems, match="missing columns: Tour"):
        run(tmp_path / "other", schema, (path, folder), group_column="Tour")


def test_a_rerun_with_more_clips_moves_no_old_clip(tmp_path, make_event, schema):
    out = tmp_path / "out"
    run(out, schema, make_event("crash", 15), make_event("nearmiss", 5))
    first = assign(out)
    run(out, schema, make_event("crash", 40), make_event("nearmiss", 5))
    second = assign(out)
    assert len(second) == 45
    assert first.items() <= second.items()
    assert sum(map(len, load_prepared(out, schema).values())) == 45


def test_a_rerun_gives_the_same_bytes(tmp_path, make_event, schema):
    out = tmp_path / "out"
    sources = make_event("crash", 12), make_event("nearmiss", 6)
    run(out, schema, *sources)
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    run(out, schema, *sources)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first


@pytest.mark.parametrize("change", [{"seed": 1}, {"fractions": (0.8, 0.1, 0.1)}, {"group_column": "Note"}])
def test_options_that_contradict_the_frozen_splits(tmp_path, make_event, schema, change):
    crash = make_event("crash", 10)
    run(tmp_path / "out", schema, crash)
    with pytest.raises(ValueError, match=r"contradicts .*splits\.json.*delete that file"):
        run(tmp_path / "out", schema, crash, **change)


def test_bad_rows_and_clips_are_left_out_and_named(tmp_path, make_event, schema, write_csv, crash_row, clip_bytes):
    _, folder = make_event("crash", 6)
    (folder / "2.mp4").write_bytes(b"no video" * 50)
    (folder / "4.mp4").unlink()
    (folder / "9.mp4").write_bytes(clip_bytes(50))
    rows = [crash_row] * 2 + [{**crash_row, "Weather": "purple"}] + [crash_row] * 3
    out = tmp_path / "out"
    report = run(out, schema, (write_csv("crash.csv", rows), folder))
    assert report.num_clips == {"crash": 4}
    assert report.num_left_out == 2
    assert problem_rows(out) == [
        ("2", "2.mp4", "unreadable clip: not a video, or one cut off before its index was written"),
        ("3", "3.mp4", "Weather is 'purple', which is no value of Weather"),
        ("4", "4.mp4", f"no such clip in {folder}"),
        ("", "9.mp4", "a clip that no row names"),
    ]
    assert sorted(assign(out)) == ["crash_1", "crash_3", "crash_5", "crash_6"]


def test_what_spoils_both_files_is_raised_at_once(tmp_path, make_event, schema):
    crash_csv, crash_dir = make_event("crash", 2)
    crash_csv.write_text(crash_csv.read_text().replace(",", ";"))
    out = tmp_path / "out"
    with pytest.raises(InputProblems) as caught:
        run(out, schema, (crash_csv, crash_dir), (tmp_path / "absent.csv", crash_dir))
    assert "separated by semicolons" in str(caught.value)
    assert "absent.csv: it does not exist" in str(caught.value)
    assert not out.exists()


def test_no_clip_left(tmp_path, make_event, schema):
    crash = make_event("crash", 2)
    for clip in crash[1].iterdir():
        clip.write_bytes(b"broken")
    with pytest.raises(InputProblems, match="no clip is left") as caught:
        run(tmp_path / "out", schema, crash)
    assert "2.mp4" in str(caught.value)


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({}, "no event is given"),
        ({"flood": (Path("a.csv"), Path("b"))}, "flood: not an event of the schema; allowed: crash, nearmiss"),
    ],
)
def test_sources_that_cannot_be(tmp_path, schema, sources, message):
    with pytest.raises(ValueError, match=message):
        prepare(sources, tmp_path / "out", schema, question=ask)


def test_clips_that_take_too_long(tmp_path, schema, make_event):
    crash = make_event("crash", 2)
    with pytest.raises(InputProblems, match="unreadable clip: the decoder took longer than 1e-06 s and was killed"):
        run(tmp_path / "out", schema, crash, clip_timeout_s=1e-6)
    assert run(tmp_path / "out", schema, crash, clip_timeout_s=0).num_clips == {"crash": 2}
    with pytest.raises(ValueError, match="clip_timeout_s=-1 is below 0; set --clip_timeout_s"):
        run(tmp_path / "out", schema, crash, clip_timeout_s=-1)


def test_a_seed_below_zero(tmp_path, schema, make_event):
    with pytest.raises(ValueError, match="seed=-1 is below 0; set --seed"):
        run(tmp_path / "out", schema, make_event("crash", 2), seed=-1)


def test_other_events_by_schema(tmp_path, make_event, schema, write_csv):
    fields = {
        "Depth": {"label": "Depth", "section": "Water", "kind": "categorical", "vocabulary": ["Low", "High"]},
        "Place": {"label": "Place", "section": "Water", "kind": "categorical"},
    }
    events = {
        name: {"title": name, "opening": f"This is a {name}.", "openings": [name], "fields": ["Depth", "Place"]}
        for name in ("flood", "tide")
    }
    mine = Schema.from_dict({"events": events, "fields": fields})
    folders = {name: make_event(name, 3)[1] for name in ("flood", "tide")}
    rows = [{"Depth": "low", "Place": place} for place in ("Under_bridge", "under bridge", "Under_bridge")]
    sources = {name: (write_csv(f"{name}.csv", rows), folder) for name, folder in folders.items()}
    out = tmp_path / "out"
    report = prepare(sources, out, mine, question=ask)
    assert report.num_clips == {"flood": 3, "tide": 3}
    samples = [sample for split in load_prepared(out, mine).values() for sample in split]
    assert {sample.annotation.values["Depth"] for sample in samples} == {"Low"}
    assert {sample.annotation.values["Place"] for sample in samples} == {"Under_bridge"}  # one spelling
    assert load_vocabularies(out) == {"Place": ["Under_bridge"]}


def test_vocabularies_of_open_fields(tmp_path, make_event, schema, write_csv, crash_row):
    _, folder = make_event("crash", 4)
    rows = [{**crash_row, "Crash with": what} for what in ("Truck", "Car", "car", "Unknown")]
    rows[1]["Crash with"] = "Car"
    rows[0]["Crash with"] = "Car"
    rows[3]["Crash with"] = "Tree"
    out = tmp_path / "out"
    run(out, schema, (write_csv("crash.csv", rows), folder))
    vocabularies = load_vocabularies(out)
    assert vocabularies["Crash_with"] == ["Car", "Tree"]
    assert "Weather" not in vocabularies
    assert "Crash_reason" not in vocabularies
    assert load_vocabularies(out / "diy_ft_data.json") == vocabularies
    filled = schema.with_vocabularies(vocabularies)
    assert filled.field("Crash_with").vocabulary == ("Car", "Tree")
    assert sum(map(len, load_prepared(out, filled).values())) == 4


@pytest.mark.parametrize("relative", [True, False])
def test_old_folder_is_read_as_it_is(tmp_path, make_event, schema, caplog, relative):
    """No splits.json, no "fields", paths relative to diy_ft_data.json or absolute."""
    made = tmp_path / "made"
    _, folder = make_event("crash", 20)
    run(made, schema, (tmp_path / "crash.csv", folder))
    old = tmp_path / "old"
    old.mkdir()
    lines = [json.loads(line) for line in (made / "crash_ft.jsonl").read_text().splitlines()]
    keep = ("id", "video", "duration", "conversations")
    (old / "crash_ft.jsonl").write_text("".join(json.dumps({key: line[key] for key in keep}) + "\n" for line in lines))
    annotation, root = ("crash_ft.jsonl", "../crash") if relative else (str(old / "crash_ft.jsonl"), str(folder))
    entry = {"annotation": annotation, "root": root, "video_read_type": "decord"}
    (old / "diy_ft_data.json").write_text(json.dumps({"crash": entry}))
    with caplog.at_level("WARNING"):
        splits = load_prepared(old, schema)
    assert "run `prepare` for frozen splits" in caplog.text
    assert [len(splits[name]) for name in ("train", "val", "test")] == [14, 2, 4]
    again = load_prepared(old / "diy_ft_data.json", schema)
    assert again == splits
    new = {sample.id: sample for split in load_prepared(made, schema).values() for sample in split}
    for sample in splits["train"]:
        assert sample.annotation == new[sample.id].annotation
        assert sample.path.is_file()


def test_a_moved_folder_is_found(tmp_path, make_event, schema):
    place = tmp_path / "a"
    place.mkdir()
    crash_csv, folder = make_event("crash", 3)
    shutil.move(folder, place / "crash")
    run(place / "out", schema, (crash_csv, place / "crash"))
    place.rename(tmp_path / "b")
    samples = load_prepared(tmp_path / "b" / "out", schema)["train"]
    assert samples
    assert all(sample.path.is_file() for sample in samples)


def test_splits_that_do_not_fit_the_lines(tmp_path, make_event, schema):
    out = tmp_path / "out"
    run(out, schema, make_event("crash", 3))
    splits = json.loads((out / "splits.json").read_text())
    del splits["assign"]["crash_2"]
    (out / "splits.json").write_text(json.dumps(splits))
    with pytest.raises(ValueError, match="names no split for crash_2"):
        load_prepared(out, schema)
    for content in ('{"assign": {"crash_1": "trian"}}', "[]", "{"):
        (out / "splits.json").write_text(content)
        with pytest.raises(ValueError, match=r"splits\.json"):
            load_prepared(out, schema)
        with pytest.raises(ValueError, match=r"splits\.json"):
            run(out, schema, (tmp_path / "crash.csv", tmp_path / "crash"))


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), ("{}", "names no clips"), ('{"flood": {"annotation": "a", "root": "b"}}', "'flood'"),
     ('{"crash": {"root": "b"}}', "'crash'"), ('{"crash": {"annotation": 1, "root": "b"}}', "'crash'"),
     ('{"crash": []}', "'crash'")],
)  # fmt: skip
def test_bad_data_files(tmp_path, schema, content, message):
    if content is not None:
        (tmp_path / "diy_ft_data.json").write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_prepared(tmp_path, schema)


def test_settings_of_upstreams_trainer_that_do_nothing_here_are_said(tmp_path, make_event, schema, caplog):
    out = tmp_path / "out"
    run(out, schema, make_event("crash", 3))
    load_prepared(out, schema)
    assert "has no effect" not in caplog.text
    data = json.loads((out / "diy_ft_data.json").read_text())
    data["crash"]["repeat_time"] = 3
    (out / "diy_ft_data.json").write_text(json.dumps(data))
    assert sum(map(len, load_prepared(out, schema).values())) == 3
    assert "{'repeat_time': 3} of 'crash' has no effect here" in caplog.text


def test_facts_of_a_dataset_that_are_none(tmp_path, make_event, schema):
    out = tmp_path / "out"
    run(out, schema, make_event("crash", 3))
    (out / "dataset.json").write_text("[]")
    for read in (lambda: load_prepared(out, schema), lambda: load_vocabularies(out)):
        with pytest.raises(ValueError, match=r"dataset\.json: it is no object"):
            read()


def test_another_schema_is_said(tmp_path, make_event, schema, caplog):
    out = tmp_path / "out"
    run(out, schema, make_event("crash", 3))
    load_prepared(out, schema)
    assert "another version" not in caplog.text
    data = schema.to_dict()
    data["fields"]["Weather"]["label"] = "The weather"
    load_prepared(out, Schema.from_dict(data))
    assert "another version of it; give --data.schema" in caplog.text


def test_full_disk_leaves_the_old_dataset(tmp_path, make_event, schema, monkeypatch):
    out = tmp_path / "out"
    run(out, schema, make_event("crash", 3))
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="free some space") as caught:
        run(out, schema, make_event("crash", 5))
    assert str(out) in str(caught.value)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
