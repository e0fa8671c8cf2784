import csv
from pathlib import Path

import pytest

from vlm_crash.data.annotations import read_annotations, read_rows
from vlm_crash.data.problems import InputProblems
from vlm_crash.schema import UNKNOWN

SHARED = Path(__file__).resolve().parents[3] / "shared" / "legacy"


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def said(problems) -> list[tuple[int | None, str, str]]:
    return [(p.row, p.video, p.problem) for p in problems]


def test_every_field_of_a_row(write_csv, crash_row, schema):
    samples, problems = read_annotations(write_csv("c.csv", [crash_row]), "crash", schema, None)
    assert problems == []
    (sample,) = samples
    assert (sample.id, sample.video, sample.event, sample.duration_s) == ("crash_1", "1.mp4", "crash", None)
    expected = {name.replace(" ", "_"): value for name, value in crash_row.items()} | {"Note": UNKNOWN}
    assert dict(sample.annotation.values) == expected
    assert sample.annotation.values["Crash_with"] == "Car"  # the column with a blank meets the field


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        ({}, ["1.mp4", "2.mp4"]),
        ({"video_id": ["7", "08"], "filename": ["x.mp4", "y.mp4"]}, ["7.mp4", "08.mp4"]),
        ({"video_id": ["7.0", "8.0"]}, ["7.mp4", "8.mp4"]),
        ({"video_id": ["a.mp4", "b.avi"]}, ["a.mp4", "b.avi"]),
        ({"filename": ["x.mp4", "y"], "Video_name": ["p.mp4", "q.mp4"]}, ["x.mp4", "y.mp4"]),
        ({"Video_name": ["p.mp4", "q.mp4"]}, ["p.mp4", "q.mp4"]),
        ({"video_id": ["", "nan"], "filename": ["x.mp4", "y.mp4"]}, ["x.mp4", "y.mp4"]),
    ],
)
def test_file_name_rules(write_csv, nearmiss_row, schema, columns, names):
    rows = [{**nearmiss_row, **{name: cells[i] for name, cells in columns.items()}} for i in range(2)]
    samples, problems = read_annotations(write_csv("n.csv", rows), "nearmiss", schema, None)
    assert [sample.video for sample in samples] == names
    assert problems == []


def test_row_numbers_count_from_one_and_skip_no_bad_row(write_csv, nearmiss_row, schema, tmp_path):
    rows = [nearmiss_row, {**nearmiss_row, **dict.fromkeys(nearmiss_row, "")}, nearmiss_row]
    clips = touch(tmp_path / "clips", "1.mp4", "2.mp4", "3.mp4")
    samples, problems = read_annotations(write_csv("n.csv", rows), "nearmiss", schema, clips)
    assert [sample.video for sample in samples] == ["1.mp4", "3.mp4"]
    assert said(problems) == [(2, "2.mp4", "no field has a value")]


def test_no_name_in_the_name_column(write_csv, nearmiss_row, schema):
    rows = [{**nearmiss_row, "video_id": "1"}, {**nearmiss_row, "video_id": "None"}]
    samples, problems = read_annotations(write_csv("n.csv", rows), "nearmiss", schema, None)
    assert [sample.video for sample in samples] == ["1.mp4"]
    assert said(problems) == [(2, "", "no clip name in video_id")]


@pytest.mark.parametrize("cell", ["", " ", "nan", "NaN", "None", "null", "Unknown"])
def test_missing_values_are_unknown_and_no_problem(write_csv, nearmiss_row, schema, cell):
    row = {**nearmiss_row, "Weather": cell, "Lanes": cell, "Avoid_reason": cell}
    (sample,), problems = read_annotations(write_csv("n.csv", [row]), "nearmiss", schema, None)
    assert problems == []
    assert {sample.annotation.values[name] for name in ("Weather", "Lanes", "Avoid_reason")} == {UNKNOWN}
    assert sample.annotation.values["Light_condition"] == "Daylight"


def test_terms_map_or_are_reported_and_the_row_stays(write_csv, nearmiss_row, schema):
    rows = [
        {**nearmiss_row, "Weather": "raining", "Lanes": "2.0", "Guilty": "no"},
        {**nearmiss_row, "Weather": "purple", "Lanes": "many"},
    ]
    samples, problems = read_annotations(write_csv("n.csv", rows), "nearmiss", schema, None)
    first, second = (sample.annotation.values for sample in samples)
    assert (first["Weather"], first["Lanes"], first["Guilty"]) == ("Rainy", "2", "No")
    assert (second["Weather"], second["Lanes"], second["Road_flat"]) == (UNKNOWN, UNKNOWN, "Flat")
    assert [(p.row, p.video) for p in problems] == [(2, "2.mp4"), (2, "2.mp4")]
    assert "'purple'" in problems[0].problem
    assert "Clear, Cloudy, Rainy" in problems[0].remedy
    assert "'many'" in problems[1].problem
    assert "whole number" in problems[1].remedy


def test_missing_columns_are_named_with_the_nearest(write_csv, nearmiss_row, schema):
    row = {{"Weather": "Wether", "Road_flat": "xyz"}.get(name, name): cell for name, cell in nearmiss_row.items()}
    with pytest.raises(InputProblems) as caught:
        read_annotations(write_csv("n.csv", [row]), "nearmiss", schema, None)
    message = str(caught.value)
    assert "Weather (the nearest there is 'Wether')" in message
    assert "Road_flat" in message
    assert "n.csv" in message


def test_duration_column(write_csv, nearmiss_row, schema):
    rows = [{**nearmiss_row, "duration": cell} for cell in ("8.5", "", "long", "-1")]
    samples, problems = read_annotations(write_csv("n.csv", rows), "nearmiss", schema, None)
    assert [sample.duration_s for sample in samples] == [8.5, None, None, None]
    assert said(problems) == [(3, "3.mp4", "duration is 'long'"), (4, "4.mp4", "duration is '-1'")]


def test_absent_clips_are_left_out_and_named(write_csv, nearmiss_row, schema, tmp_path):
    clips = touch(tmp_path / "clips", "1.mp4", "3.mp4")
    path = write_csv("n.csv", [nearmiss_row] * 3)
    samples, problems = read_annotations(path, "nearmiss", schema, clips)
    assert [(sample.id, sample.path) for sample in samples] == [
        ("nearmiss_1", clips / "1.mp4"),
        ("nearmiss_3", clips / "3.mp4"),
    ]
    assert said(problems) == [(2, "2.mp4", f"no such clip in {clips}")]


def test_an_id_finds_the_only_clip_of_its_stem(write_csv, nearmiss_row, schema, tmp_path):
    clips = touch(tmp_path / "clips", "1.avi", "2.MP4", "3.avi", "3.mkv", "y.avi")
    rows = [{**nearmiss_row, "video_id": name} for name in ("1", "2", "3", "y.mkv")]
    samples, problems = read_annotations(write_csv("n.csv", rows), "nearmiss", schema, clips)
    assert [(sample.id, sample.video) for sample in samples] == [
        ("nearmiss_1.avi", "1.avi"),
        ("nearmiss_2.MP4", "2.MP4"),
    ]
    assert [p.row for p in problems] == [3, 4]  # two of that stem; a name with a suffix means that file


def test_doubled_clips(write_csv, nearmiss_row, schema):
    other = {**nearmiss_row, "Weather": "Rainy"}
    rows = [{**row, "video_id": name} for row, name in zip([nearmiss_row] * 4 + [other], "abcab", strict=True)]
    samples, problems = read_annotations(write_csv("n.csv", rows), "nearmiss", schema, None)
    assert [sample.video for sample in samples] == ["a.mp4", "c.mp4"]
    assert said(problems) == [
        (2, "b.mp4", "rows 2, 5 name the same clip and say different things"),
        (4, "a.mp4", "rows 1, 4 name the same clip and say the same"),
        (5, "b.mp4", "rows 2, 5 name the same clip and say different things"),
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (None, "no such folder"),
        ([], "no clips in the folder"),
        (["notes.txt"], "no clips in the folder"),
        (["a.mp4"], r"none of its 2 rows has its clip in .*the first is 1\.mp4; the folder has a\.mp4"),
    ],
)
def test_folders_that_cannot_be_meant(write_csv, nearmiss_row, schema, tmp_path, names, message):
    folder = tmp_path / "clips"
    if names is not None:
        touch(folder, *names)
    with pytest.raises(InputProblems, match=message):
        read_annotations(write_csv("n.csv", [nearmiss_row] * 2), "nearmiss", schema, folder)


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/legacy is absent: no CSVs of the old scripts to try")
@pytest.mark.parametrize("event", ["crash", "nearmiss"])
def test_csvs_of_the_old_scripts(schema, event):
    path = SHARED / f"AV_{event}_modified_r.csv"
    samples, problems = read_annotations(path, event, schema, None)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert problems == []
    assert [sample.video for sample in samples] == [f"{number}.mp4" for number in range(1, len(rows) + 1)]
    for sample, row in zip(samples, rows, strict=True):
        for name, cell in row.items():
            assert sample.annotation.values[name.replace(" ", "_")] == (cell or UNKNOWN)


def of_others(row, column, names):
    """Rows that say their number in Crash_reason, with a column of names."""
    return [{**row, "Avoid_reason": f"reason of {name}", column: name} for name in names]


@pytest.mark.parametrize(
    ("column", "names"),
    [
        ("clip", ["3", "1", "2"]),
        ("Path", ["crash/3.mp4", "crash/1.mp4", "2.mp4"]),
        ("video_id", ["D:\\data\\3.mp4", "..\\1.mp4", "D:\\2"]),
    ],
)
def test_a_row_keeps_its_clip_whatever_the_column_of_names(
    write_csv, nearmiss_row, schema, tmp_path, caplog, column, names
):
    clips = touch(tmp_path / "clips", "1.mp4", "2.mp4", "3.mp4")
    path = write_csv("n.csv", of_others(nearmiss_row, column, names))
    samples, problems = read_annotations(path, "nearmiss", schema, clips)
    assert [sample.video for sample in samples] == ["3.mp4", "1.mp4", "2.mp4"]
    assert problems == [] and caplog.messages == []
    assert samples[0].annotation.values["Avoid_reason"] == f"reason of {names[0]}"


def test_row_numbers_are_told_and_not_taken_where_a_column_has_names(write_csv, nearmiss_row, schema, tmp_path, caplog):
    clips = touch(tmp_path / "clips", *(f"{number}.mp4" for number in range(1, 13)))
    order = [4, 9, 1, 12, 2, 3, 5, 6, 7, 8, 10, 11]

    def read(column, cells):
        rows = [{**nearmiss_row, column: str(cell)} for cell in cells]
        return read_annotations(write_csv("n.csv", rows), "nearmiss", schema, clips)[0]

    for cells in (order, [*order[:-1], 99], [f"{number}.mp4" for number in order], ["a", *range(3, 14)]):
        with pytest.raises(InputProblems, match=r"'which one' seems to \(row 1 has .*call it video_id"):
            read("which one", cells)
    assert caplog.messages == []
    # The row number itself, an index from 0 on, what is there for many rows, what no clip is called.
    for cells in (range(1, 13), range(12), [1, 2] * 6, range(60, 72), ["rain"] * 12):
        assert len(read("", cells)) == 12
    assert len(caplog.messages) == 5
    assert "so row 1 is taken for 1.mp4" in caplog.messages[0]


def test_rows_without_any_value(write_csv, nearmiss_row, schema, tmp_path):
    clips = touch(tmp_path / "clips", "1.mp4")
    rows = [{**dict.fromkeys(nearmiss_row, "nan"), "video_id": "1"}]
    with pytest.raises(InputProblems, match="none of its 1 rows has a value in any field; fill them in"):
        read_annotations(write_csv("n.csv", rows), "nearmiss", schema, clips)


def test_a_name_in_the_other_form_of_unicode(write_csv, nearmiss_row, schema, tmp_path):
    clips = touch(tmp_path / "clips", "Zu\u0308rich.mp4", "\xf6.avi")
    rows = [{**nearmiss_row, "video_id": name} for name in ("Z\xfcrich", "o\u0308")]
    samples, problems = read_annotations(write_csv("n.csv", rows), "nearmiss", schema, clips)
    assert [sample.path.name for sample in samples] == ["Zu\u0308rich.mp4", "\xf6.avi"]
    assert problems == []


def test_why_a_clip_is_not_taken(write_csv, nearmiss_row, schema, tmp_path):
    clips = touch(tmp_path / "clips", "1.h264", "2.dav", "3.dav", "7.avi", "7.mkv")
    (clips / "4.mp4").mkdir()
    for name in ("5.mp4", "6.mp4"):
        (clips / name).symlink_to({"5.mp4": "nowhere", "6.mp4": "6.mp4"}[name])
    names = ["1", "2.dav", "3", "4", "5", "6", "7", "8", "x" * 300]
    rows = [{**nearmiss_row, "video_id": name} for name in names]
    samples, problems = read_annotations(write_csv("n.csv", rows), "nearmiss", schema, clips)
    assert [sample.video for sample in samples] == ["1.h264", "2.dav"]
    assert [problem.problem for problem in problems] == [
        f"no such clip in {clips}; there is 3.dav, whose ending is no video's",
        f"4.mp4 in {clips} is a folder",
        f"5.mp4 in {clips} is a link to nowhere",
        f"6.mp4 in {clips} is a link to nowhere",
        f"no 7.mp4 in {clips}, and several of that name (7.avi, 7.mkv)",
        f"no such clip in {clips}",
        f"no such clip in {clips}",
    ]


def test_a_group_column_does_not_change_which_clip_a_row_is_of(write_csv, nearmiss_row, schema, tmp_path, caplog):
    """The choice of the names' column is the file's: `prepare` with a group column and `evaluate` agree."""
    clips = touch(tmp_path / "clips", *(f"{number}.mp4" for number in range(1, 5)))
    rows = of_others(nearmiss_row, "video", ["3", "1", "2"])
    path = write_csv("n.csv", rows)
    for folder in (clips, None):
        with pytest.raises(
            InputProblems, match=r"'video' is also the one that names the clips \(row 1: '3'\); .*video_id"
        ):
            read_rows(path, "nearmiss", schema, folder, "video")
    assert [s.video for s in read_annotations(path, "nearmiss", schema, clips)[0]] == ["3.mp4", "1.mp4", "2.mp4"]
    assert caplog.messages == []
    assert [s.video for s in read_annotations(path, "nearmiss", schema, None)[0]] == ["3.mp4", "1.mp4", "2.mp4"]
    assert "the column 'video' is taken for the clips' names" in caplog.text  # no folder says that it is right

    named = write_csv("m.csv", [{**row, "video_id": str(4 - n)} for n, row in enumerate(rows)])
    found = [read_rows(named, "nearmiss", schema, clips, column)[0] for column in (None, "video")]
    assert [[row.sample.video for row in one] for one in found] == [["4.mp4", "3.mp4", "2.mp4"]] * 2
    assert [row.group for row in found[1]] == ["3", "1", "2"]


@pytest.mark.parametrize("column", [None, "video_id"])
@pytest.mark.parametrize("last", [2, 3])  # a row after the open quote closes it, or the next but one
def test_no_label_moves_where_a_quote_is_closed_by_chance(write_csv, nearmiss_row, schema, tmp_path, column, last):
    names = [f"n{number}" for number in range(1, 6)]
    path = write_csv("n.csv", of_others(nearmiss_row, column or "Notes", names))
    lines = path.read_text().splitlines()
    for number, (old, new) in {1: ("Yes,", '"Yes,'), last: ("Yes,", 'Yes",')}.items():
        assert lines[number].count(old) == 1
        lines[number] = lines[number].replace(old, new)
    path.write_text("\n".join(lines) + "\n")
    if column is None:
        with pytest.raises(
            InputProblems,
            match=r"row 1: a cell of it has several lines that may be rows.* close the quote.*nothing is taken",
        ):
            read_annotations(path, "nearmiss", schema, None)
    else:
        samples, problems = read_annotations(path, "nearmiss", schema, None)
        assert [s.video for s in samples] == [f"{name}.mp4" for name in names[last:]]
        assert [s.annotation.values["Avoid_reason"] for s in samples] == [f"reason of {name}" for name in names[last:]]
        assert [p.row for p in problems] == [1]


def test_row_numbers_are_not_counted_past_a_broken_row_of_several_lines(write_csv, nearmiss_row, schema):
    path = write_csv("n.csv", [nearmiss_row] * 3)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], lines[2] + ',"a\nb"', lines[3]]) + "\n")
    with pytest.raises(InputProblems, match=r"row 2: 10 cells where the header has 9; "):
        read_annotations(path, "nearmiss", schema, None)
    path.write_text("\n".join([*lines[:2], lines[2] + ",a", lines[3]]) + "\n")
    samples, problems = read_annotations(path, "nearmiss", schema, None)
    assert ([s.video for s in samples], [p.row for p in problems]) == (["1.mp4", "3.mp4"], [2])


def test_a_column_of_numbers_is_not_taken_for_names_on_slight_grounds(write_csv, nearmiss_row, schema, tmp_path):
    clips = touch(tmp_path / "clips", *(f"{number}.mp4" for number in range(1, 31)))
    for cells in (
        ["", "", "2", *[""] * 9],  # sparse
        ["20", "27", "9"],  # three speeds
        [str(number) for number in (25, 3, 17, 9, 30, 1, 12, 8, 22, 14, 5, 28)],  # twelve, of thirty clips
        ["", "", "7.mp4", *[""] * 9],
    ):
        rows = [{**nearmiss_row, "which": cell} for cell in cells]
        samples, _ = read_annotations(write_csv("n.csv", rows), "nearmiss", schema, clips)
        assert [sample.video for sample in samples] == [f"{number}.mp4" for number in range(1, len(rows) + 1)]


def test_a_column_that_may_mean_something_else_than_names(write_csv, nearmiss_row, schema, tmp_path):
    clips = touch(tmp_path / "clips", "1.mp4", "2.mp4")
    for folder in (clips, None):
        path = write_csv(
            "n.csv", of_others(nearmiss_row, "clip", ["1", "2"]) + of_others(nearmiss_row, "clip", ["1", "2"])
        )
        path.write_text(path.read_text().replace("reason of", "another of", 2))
        with pytest.raises(InputProblems, match=r"no row is left.*named by clip; .*or call the column otherwise"):
            read_annotations(path, "nearmiss", schema, folder)
    for column, said_so in (("path", True), ("video_id", False)):
        with pytest.raises(InputProblems, match=f"named by {column}, the first is straight.mp4") as caught:
            read_annotations(
                write_csv("n.csv", of_others(nearmiss_row, column, ["straight"])), "nearmiss", schema, clips
            )
        assert ("or call the column otherwise" in str(caught.value)) == said_so


def test_a_name_is_found_in_another_case_without_its_ending_and_with_a_dot(write_csv, nearmiss_row, schema, tmp_path):
    clips = touch(
        tmp_path / "clips", "A.avi", "b.avi", "B.avi", "1699.264.mp4", "x.json", "y.dav", "8.264", "8.264.mp4"
    )
    names = {"a": "A.avi", "B": "B.avi", "1699.264": "1699.264.mp4", "y.dav": "y.dav", "8.264": "8.264"}
    rows = of_others(nearmiss_row, "video_id", [*names, "x.json", "x"])
    samples, problems = read_annotations(write_csv("n.csv", rows), "nearmiss", schema, clips)
    assert [sample.path.name for sample in samples] == list(names.values())
    assert [p.row for p in problems] == [6, 7]  # no clip, whatever names it
