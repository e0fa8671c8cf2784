"""`prepare --corrections`: labels change, the CSVs do not, and what does not fit is refused as a whole."""

import json

import pytest

from vlm_crash.data.check import check
from vlm_crash.data.clip_table import CLIPS_FILE, ClipRow, ClipTable, Stamp
from vlm_crash.data.clip_table import COLUMNS as CLIP_COLUMNS
from vlm_crash.data.conversation import question
from vlm_crash.data.corrections import APPLIED_FILE, COLUMNS, CORRECTIONS_FILE
from vlm_crash.data.prepare import load_prepared, prepare
from vlm_crash.data.problems import InputProblems
from vlm_crash.data.quarantine import Checks
from vlm_crash.video.preflight import Limits


@pytest.fixture
def crash(make_event):
    return make_event("crash", 4)


@pytest.fixture
def run(tmp_path, crash, schema):
    """Prepare the dataset, with corrections given as rows of cells."""

    def make(*rows, name="marks.csv"):
        path = None
        if rows:
            path = tmp_path / name
            path.write_text("\n".join(",".join(row) for row in (COLUMNS, *rows)) + "\n", encoding="utf-8")
        report = prepare(
            {"crash": crash}, tmp_path / "out", schema, question=lambda event: question(schema), corrections=path
        )
        splits = load_prepared(tmp_path / "out", schema)
        values = {s.video: s.annotation.values for found in splits.values() for s in found}
        return report, values, {s.id: split for split, found in splits.items() for s in found}

    return make


def row(video, field, old, new, note="", event="crash"):
    return (event, video, field, old, new, note, "ann")


def test_a_label_changes_and_all_else_stays(run, tmp_path, crash):
    original = crash[0].read_bytes()
    _, before, splits = run()
    assert not (tmp_path / "out" / CORRECTIONS_FILE).exists()
    report, after, same = run(
        row("2.mp4", "Weather", "Clear", "rainy", "drops on the lens"), row("3.mp4", "Note", "", "A dog")
    )
    assert same == splits
    assert crash[0].read_bytes() == original
    changed = {(video, name): value for video, values in after.items() for name, value in values.items()
               if before[video][name] != value}  # fmt: skip
    assert changed == {("2.mp4", "Weather"): "Rainy", ("3.mp4", "Note"): "A dog"}
    assert report.num_corrected == 2
    assert "values that are not those of the CSVs: 2 (" in str(report)
    applied = json.loads((tmp_path / "out" / APPLIED_FILE).read_text())
    assert [(a["id"], a["field"], a["old"], a["new"], a["row"]) for a in applied] == [
        ("crash_2", "Weather", "Clear", "rainy", 2), ("crash_3", "Note", "", "A dog", 3)
    ]  # fmt: skip
    assert applied[0]["csv"] == str(crash[0])
    assert "- Weather: Rainy" in (tmp_path / "out" / "crash_ft.jsonl").read_text()


def test_corrections_of_earlier_runs_hold_and_are_added_to(run, tmp_path):
    run(row("2.mp4", "Weather", "Clear", "Rainy"))
    _, kept, _ = run()
    assert kept["2.mp4"]["Weather"] == "Rainy"
    report, after, _ = run(row("2.mp4", "Weather", "Rainy", "Foggy"), row("1.mp4", "Lanes", "2", "2"), name="b.csv")
    assert (after["2.mp4"]["Weather"], after["1.mp4"]["Lanes"], report.num_corrected) == ("Foggy", "2", 1)
    assert len((tmp_path / "out" / CORRECTIONS_FILE).read_text().splitlines()) == 4
    _, again, _ = run(row("2.mp4", "Weather", "Rainy", "Foggy"))  # the same once more says nothing new
    assert again == after


def test_a_correction_that_was_taken_back_is_made_again(run, tmp_path):
    there, back = row("2.mp4", "Weather", "Clear", "Rainy"), row("2.mp4", "Weather", "Rainy", "Clear")
    for given, wanted in ((there, "Rainy"), (back, "Clear"), (there, "Rainy"), (there, "Rainy"), (back, "Clear")):
        assert run(given)[1]["2.mp4"]["Weather"] == wanted
        assert run()[1]["2.mp4"]["Weather"] == wanted  # as it is kept
    assert len((tmp_path / "out" / CORRECTIONS_FILE).read_text().splitlines()) == 5
    run(row("2.mp4", "Weather", "Clear", "Foggy"))
    with pytest.raises(InputProblems, match="Weather is 'Foggy' in the dataset, not 'Clear'"):
        run(there)


def test_a_cell_that_a_spreadsheet_would_run_comes_back_as_it_was(run, tmp_path):
    _, after, _ = run(row("3.mp4", "Note", "", "'-2 m a dog"), row("2.mp4", "Lanes", "2", "2", "'=1"))
    assert after["3.mp4"]["Note"] == "-2 m a dog"
    kept = (tmp_path / "out" / CORRECTIONS_FILE).read_text()
    assert ",'-2 m a dog," in kept and ",'=1," in kept
    applied = json.loads((tmp_path / "out" / APPLIED_FILE).read_text())
    assert [one["note"] for one in applied] == ["", "=1"]
    assert run()[1] == after


def test_two_people_may_say_the_same(run, tmp_path):
    _, after, _ = run(row("2.mp4", "Weather", "Clear", "Rainy"), row("2.mp4", "Weather", "Clear", "Rainy", "I agree"))
    assert after["2.mp4"]["Weather"] == "Rainy"
    assert len((tmp_path / "out" / CORRECTIONS_FILE).read_text().splitlines()) == 3
    with pytest.raises(InputProblems, match="Weather is 'Rainy' in the dataset already, not 'Clear'"):
        run(row("2.mp4", "Weather", "Clear", "Rainy", "I too"))


def test_all_that_does_not_fit_is_named_and_nothing_is_written(run, tmp_path):
    run()
    files = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(InputProblems) as error:
        run(
            row("2.mp4", "Weather", "Snowy", "Rainy"),
            row("9.mp4", "Weather", "Clear", "Rainy"),
            row("2.mp4", "Wether", "Clear", "Rainy"),
            row("3.mp4", "Weather", "Clear", "Raniy"),
            row("1.mp4", "Lanes", "2", ""),
            row("2.mp4", "Lanes", "2", "99999999999"),
            row("1.mp4", "Weather", "Clear", "Rainy", event="crsh"),
            row("4.mp4", "Weather", "Clear", "Rainy"),
            row("4.mp4", "Weather", "Clear", "Foggy"),
        )
    said = str(error.value)
    for wanted in (
        "row 1 (2.mp4): Weather is 'Clear' in the dataset, not 'Snowy'",
        "row 2 (9.mp4): crash has no clip of that name",
        "row 3 (2.mp4): 'Wether' is no field of crash; write its name; nearest: 'Weather'",
        "row 4 (3.mp4): 'Raniy' is no value of Weather; allowed: Clear, Cloudy",
        "row 5 (1.mp4): the new value of Lanes is empty; allowed: a whole number up to 99, or Unknown",
        "row 6 (2.mp4): '99999999999' is no value of Lanes; allowed: a whole number up to 99, or Unknown",
        "row 7 (1.mp4): 'crsh' is no event; write the event as it is; nearest: 'crash'",
        "row 9 (4.mp4): Weather is to become 'Rainy' (row 8) and 'Foggy' (row 9); keep one of them",
    ):
        assert wanted in said, said
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == files


def test_a_file_without_the_columns(run, tmp_path, crash, schema):
    (tmp_path / "x.csv").write_text("event,video\ncrash,1.mp4\n")
    with pytest.raises(InputProblems, match="missing columns: field, old, new, note, annotator"):
        prepare({"crash": crash}, tmp_path / "out", schema, question=str, corrections=tmp_path / "x.csv")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "x.csv: it is a folder; give the path of the correction CSV"),
        (b"", "it has no header"),
        (",".join(COLUMNS).encode("utf-16"), "line 1 is not UTF-8"),
        (",".join(COLUMNS).encode(), "it has a header and no rows; add one row per label"),
    ],
)
def test_a_file_that_is_none(tmp_path, crash, schema, content, said):
    path = tmp_path / "x.csv"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(InputProblems) as error:
        prepare({"crash": crash}, tmp_path / "out", schema, question=str, corrections=path)
    assert said in str(error.value)
    assert str(error.value).startswith("the corrections cannot be used")


@pytest.fixture
def run_both(tmp_path, crash, make_event, schema):
    """Prepare crashes and near misses, with corrections given as rows of cells."""
    sources = {"crash": crash, "nearmiss": make_event("nearmiss", 3)}

    def make(*rows):
        path = tmp_path / "marks.csv"
        path.write_text("\n".join(",".join(row) for row in (COLUMNS, *rows)) + "\n", encoding="utf-8")
        report = prepare(
            sources,
            tmp_path / "out",
            schema,
            question=lambda event: question(schema),
            corrections=path if rows else None,
        )
        splits = load_prepared(tmp_path / "out", schema)
        return report, {s.id: (s, split) for split, found in splits.items() for s in found}

    return make


def test_a_clip_becomes_one_of_the_other_event_and_back(run_both, tmp_path, crash):
    """Fields that both events have stay, as corrected; those of the old one are kept aside and come back with it."""
    original, (_, before) = crash[0].read_bytes(), run_both()
    there = [row("2.mp4", "event", "crash", "nearmiss", "no contact"), row("2.mp4", "Weather", "Clear", "Rainy")]
    report, after = run_both(*there)
    sample, split = after["crash_2"]
    assert split == before["crash_2"][1] and {id: split for id, (_, split) in after.items()} == {
        id: split for id, (_, split) in before.items()
    }
    assert (sample.event, sample.video) == ("nearmiss", "../crash/2.mp4") and sample.path.samefile(crash[1] / "2.mp4")
    values = sample.annotation.values
    assert (values["Weather"], values["Lanes"], values["Avoid_reason"]) == ("Rainy", "2", "Unknown")
    assert "Crash_severity" not in values and report.num_corrected == 2  # the event and the weather
    assert report.num_clips == {"crash": 3, "nearmiss": 4}
    assert crash[0].read_bytes() == original
    applied = json.loads((tmp_path / "out" / APPLIED_FILE).read_text())
    assert [(one["field"], one["id"], one["row"]) for one in applied] == [
        ("Weather", "crash_2", 2),
        ("event", "crash_2", 2),
    ]
    assert applied[1]["left_out"]["Crash_severity"] == "Injury" and "Weather" not in applied[1]["left_out"]
    assert run_both()[1] == run_both(*there)[1] == after  # kept, and the same once more says nothing new
    moved = ("nearmiss", "../crash/2.mp4")
    _, filled = run_both((*moved, "Avoid_reason", "", "Braked", "", ""))
    assert filled["crash_2"][0].annotation.values["Avoid_reason"] == "Braked"
    _, back = run_both((*moved, "event", "nearmiss", "crash", "", ""))
    values = back["crash_2"][0].annotation.values
    assert (back["crash_2"][0].video, values["Weather"], values["Crash_severity"]) == ("2.mp4", "Rainy", "Injury")
    with pytest.raises(InputProblems) as error:
        run_both(
            row("1.mp4", "event", "crash", "fire"), row("3.mp4", "event", "nearmiss", "crash"),
            row("4.mp4", "event", "crash", "nearmiss"), row("4.mp4", "event", "crash", "crash"),
        )  # fmt: skip
    assert "'fire' is no event; allowed: crash, nearmiss" in str(error.value)
    assert "its event is 'crash', and `old` is 'nearmiss'" in str(error.value)
    assert "event is to become 'nearmiss' (row 3) and 'crash' (row 4)" in str(error.value)


def test_an_event_that_the_dataset_lacks_is_refused(run):
    with pytest.raises(InputProblems, match="the dataset has no nearmiss; give the CSV and the folder of nearmiss"):
        run(row("2.mp4", "event", "crash", "nearmiss"))


def test_a_corrected_event_names_a_clip_that_is_there_though_its_folder_is_a_link(run_both, tmp_path, crash):
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    (tmp_path / "nearmiss").rename(tmp_path / "disk" / "deep" / "clips")
    (tmp_path / "nearmiss").symlink_to(tmp_path / "disk" / "deep" / "clips")
    _, after = run_both(row("2.mp4", "event", "crash", "nearmiss"))
    assert after["crash_2"][0].event == "nearmiss" and after["crash_2"][0].path.samefile(crash[1] / "2.mp4")


def test_a_corrected_event_lifts_no_quarantine(run_both, tmp_path, crash, schema):
    """There and back, though the check was made while its event was the other one; it is not looked at anew."""
    _, before = run_both()
    bad = before["crash_2"][0]
    said = dict.fromkeys(CLIP_COLUMNS, "") | {"event": "crash", "clip": "2.mp4", "status": "quarantined"}
    with ClipTable(tmp_path / "out" / CLIPS_FILE) as table:
        stamp = dict(zip(("bytes", "mtime_ns"), Stamp.of(bad.path), strict=True))
        table.add(ClipRow({**said, **stamp, "reason": "it hangs"}))

    def quarantined(samples):
        marked = Checks.of(tmp_path / "out").mark(sample for sample, _ in samples.values())
        return [(sample.id, sample.event, sample.quarantined) for sample in marked if sample.quarantined]

    assert quarantined(before) == [("crash_2", "crash", "it hangs")]
    _, there = run_both(row("2.mp4", "event", "crash", "nearmiss"))
    assert quarantined(there) == [("crash_2", "nearmiss", "it hangs")]
    report = check(tmp_path / "out", schema, Limits(), num_workers=1)
    assert (report.num_looked_at, report.num_quarantined) == (6, 1)
    _, back = run_both(("nearmiss", "../crash/2.mp4", "event", "nearmiss", "crash", "", ""))
    assert quarantined(back) == [("crash_2", "crash", "it hangs")]
