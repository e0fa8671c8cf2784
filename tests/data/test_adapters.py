"""Datasets of others, small files of their form with real clips: nothing invented, nothing dropped in silence."""

import csv
import json
from pathlib import Path, PurePath

import pytest

from vlm_crash.cli import main
from vlm_crash.data import adapters
from vlm_crash.data.prepare import load_prepared
from vlm_crash.schema import UNKNOWN, load_schema

SCHEMA = load_schema()


@pytest.fixture
def clips(tmp_path, clip_bytes):
    """Write clips of distinct content under a folder."""

    def make(*names: str) -> Path:
        for number, name in enumerate(names):
            path = tmp_path / "clips" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(clip_bytes(100) + f"{number}".encode())
        return tmp_path / "clips"

    return make


def prepare(tmp_path: Path, *options: object) -> dict[str, tuple[str, str, dict[str, str]]]:
    """Run the command; by clip its event, its split and the fields that are known."""
    out = tmp_path / "out"
    assert main(["prepare", "--out", str(out), *map(str, options)]) == 0
    return {
        sample.video: (sample.event, split, sample.annotation.known)
        for split, samples in load_prepared(out, SCHEMA).items()
        for sample in samples
    }


def problems(tmp_path: Path) -> list[str]:
    with (tmp_path / "out" / "problems.csv").open(encoding="utf-8", newline="") as file:
        return [f"{row['row']}: {row['problem']}" for row in csv.DictReader(file)]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_car_crash_dataset(tmp_path, clips, capsys):
    zeros = "[" + ", ".join(["0"] * 30 + ["1"] * 20) + "]"
    text = write(
        tmp_path / "Crash-1500.txt",
        f"000001,{zeros},285,lxVgNT3KT_8,Day,Normal,No\n000002,{zeros},58,QLFaSbMjzxE,Night,Snowy,Yes\n"
        f"000003,{zeros},99,lxVgNT3KT_8,Day,Rainy,Yes\nno line of it\n000005,{zeros},9,abc,Day,Rainy,Yes\n",
    )
    names = [f"00000{number}.mp4" for number in (1, 2, 3, 4)]
    found = prepare(tmp_path, "--form", "ccd", "--annotations", text, "--clips", clips(*names))
    assert {name: (event, known) for name, (event, _, known) in found.items()} == {
        "000001.mp4": ("crash", {"Light_condition": "Daylight"}),
        "000002.mp4": ("crash", {"Weather": "Snowy"}),
        "000003.mp4": ("crash", {"Light_condition": "Daylight", "Weather": "Rainy"}),
    }
    assert found["000001.mp4"][1] == found["000003.mp4"][1]  # of one video
    assert problems(tmp_path) == [
        "4: it is not vidname,[binlabels],startframe,youtubeID,timing,weather,egoinvolve",
        f"5: no such clip in {tmp_path / 'clips'}",
        ": 1 clip: Light_condition is 'Night', which is no one term of it",
        ": 1 clip: Weather is 'Normal', which is no one term of it",
        ": a clip that no row names",
    ]
    assert "3 clips, 2 rows left out" in capsys.readouterr().out


def test_every_field_that_is_not_said_is_unknown(tmp_path, clips):
    text = write(tmp_path / "a.csv", "path,label,split\na.mp4,crash,train\nb.mp4,near_miss,test\n")
    found = prepare(tmp_path, "--form", "nexar", "--annotations", text, "--clips", clips("a.mp4", "b.mp4"))
    assert found == {"a.mp4": ("crash", "train", {}), "b.mp4": ("nearmiss", "test", {})}
    line = json.loads((tmp_path / "out" / "crash_ft.jsonl").read_text())
    assert set(line["fields"].values()) == {UNKNOWN}
    assert len(line["fields"]) == 19


def test_paths_as_others_write_them(tmp_path, clips):
    """Absolute, with backslashes, with a suffix in capitals; one that leads out of the folder is named and left out."""
    folder = clips("a.mp4", "in/b.mp4", "00020.MP4", "../elsewhere.mp4")
    names = [folder / "a.mp4", "in\\b.mp4", "20", tmp_path / "elsewhere.mp4", "../elsewhere.mp4"]
    text = write(tmp_path / "a.csv", "path,label\n" + "".join(f"{name},crash\n" for name in names))
    found = prepare(tmp_path, "--form", "nexar", "--annotations", text, "--clips", folder, "--fractions", "[1,0,0]")
    assert sorted(found) == ["00020.MP4", "a.mp4", "in/b.mp4"]
    outside = f"the path lies outside {folder} (--clips)"
    assert problems(tmp_path) == [f"4: {outside}", f"5: {outside}"]


def test_names_in_the_other_form_of_unicode(tmp_path, clips):
    text = write(tmp_path / "a.csv", "path,label\nZ\xfcrich.mp4,crash\no\u0308,crash\n")
    folder = clips("Zu\u0308rich.mp4", "\xf6.mp4", "._\xf6.mp4")
    found = prepare(tmp_path, "--form", "nexar", "--annotations", text, "--clips", folder, "--fractions", "[1,0,0]")
    assert sorted(found) == ["Zu\u0308rich.mp4", "\xf6.mp4"] and problems(tmp_path) == []


def test_an_id_as_it_stands_with_a_suffix_in_capitals(tmp_path, clips):
    text = write(tmp_path / "a.csv", "id,label\n20,crash\n21,crash\n")
    folder = clips("20.MP4", "00021.MP4")
    found = prepare(tmp_path, "--form", "nexar", "--annotations", text, "--clips", folder, "--fractions", "[1,0,0]")
    assert sorted(found) == ["00021.MP4", "20.MP4"]


def test_a_name_that_no_file_can_have_is_a_row_of_the_problems(tmp_path, clips):
    names = ["a.mp4", f"{'b' * 300}.mp4", f"{'c' * 300}/d", "9" * 5000, "\u00b2"]
    text = write(tmp_path / "a.csv", "id,label\n" + "".join(f"{name},crash\n" for name in names))
    folder = clips("a.mp4")
    found = prepare(tmp_path, "--form", "nexar", "--annotations", text, "--clips", folder, "--fractions", "[1,0,0]")
    assert list(found) == ["a.mp4"]
    assert problems(tmp_path) == [f"{row}: no such clip in {folder}" for row in (2, 3, 4, 5)]


def test_each_name_of_a_folder_is_looked_at_once(tmp_path, monkeypatch):
    for number in range(60):
        (tmp_path / f"{number}.mp4").touch()
    stem, asked = PurePath.stem.fget, []
    monkeypatch.setattr(PurePath, "stem", property(lambda path: asked.append(path) or stem(path)))
    assert all(adapters._find(tmp_path, str(number)) == tmp_path / f"{number}.mp4" for number in range(60))
    assert len(asked) <= 60


def test_nexar_challenge(tmp_path, clips):
    """Its 1 is a crash or a near miss, which only the user can say; its ids are numbers of five digits."""
    text = write(
        tmp_path / "train.csv",
        "id,time_of_event,time_of_alert,target,weather,light_conditions,subset\n"
        "822,19.5,18.6,1,Rain,Normal,train\n1924,,,0,Clear,Dark,train\n429,20.2,19.2,1.0,Cloudy,Bright,validation\n",
    )
    folder = clips("00822.mp4", "01924.mp4", "00429.mp4")
    given = ["--form", "nexar", "--annotations", text, "--clips", folder, "--event_of.1", "crash"]
    assert prepare(tmp_path, *given) == {
        "00822.mp4": ("crash", "train", {"Weather": "Rainy"}), "00429.mp4": ("crash", "val", {"Weather": "Cloudy"}),
    }  # fmt: skip
    assert ": 1 clip is labelled '0', no event of ours" in problems(tmp_path)
    assert ": a clip that no row names" not in problems(tmp_path)
    taken = prepare(tmp_path, *given, "--event_of.0", "nearmiss")
    assert taken["01924.mp4"] == ("nearmiss", "train", {"Weather": "Clear"})


def test_dota(tmp_path, clips):
    entry = {"video_start": 0, "anomaly_start": 32, "anomaly_end": 60, "num_frames": 89}
    said = {
        "0RJPQ_97dcs_000199": {**entry, "anomaly_class": "ego: pedestrian", "subset": "train"},
        "0RJPQ_97dcs_000307": {**entry, "anomaly_class": "other: turning", "subset": "val"},
        "0Sk8GPZ93Do_001": {**entry, "anomaly_class": "other: leave_to_left", "subset": "train"},
        "0Sk8GPZ93Do_002": {**entry, "anomaly_class": "ego: unknown", "subset": "train"},
        "0Sk8GPZ93Do_003": {**entry, "subset": "train"},
    }
    text = write(tmp_path / "metadata_train.json", json.dumps(said))
    given = ["--form", "dota", "--annotations", text, "--clips", clips(*(f"{name}.mp4" for name in said))]
    found = prepare(tmp_path, *given, "--event_of.leave_to_left", "crash")
    assert found == {
        "0RJPQ_97dcs_000199.mp4": ("crash", "train", {"Crash_with": "Pedestrian"}),
        "0RJPQ_97dcs_000307.mp4": ("crash", "val", {}),  # the official split, though it is of one video
        "0Sk8GPZ93Do_001.mp4": ("crash", "train", {}),
    }
    assert "5: it has no anomaly_class" in problems(tmp_path)
    assert ": 1 clip is labelled 'unknown', no event of ours" in problems(tmp_path)


def test_a_folder_per_event(tmp_path, clips):
    names = ["crash/1.mp4", "crash/2.mp4", "Near-Miss/1.mp4", "normal/1.mp4"]
    found = prepare(tmp_path, "--form", "folders", "--clips", clips(*names))
    assert {name: event for name, (event, *_) in found.items()} == {
        "crash/1.mp4": "crash", "crash/2.mp4": "crash", "Near-Miss/1.mp4": "nearmiss",
    }  # fmt: skip
    assert problems(tmp_path) == [": 1 clip is labelled 'normal', no event of ours"]


def test_folders_of_splits(tmp_path, clips):
    names = [f"{split}/{event}/1.mp4" for split in ("train", "validation", "test") for event in ("crash", "nearmiss")]
    found = prepare(tmp_path, "--form", "folders", "--clips", clips(*names))
    assert {name: (event, split) for name, (event, split, _) in found.items()} == {
        name: (name.split("/")[1], name.split("/")[0].removesuffix("idation")) for name in names
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--form", "kitti"], "form='kitti' is not one of ['ccd', 'nexar', 'dota', 'folders']; set --form"),
        (["--form", "ccd"], "--form ccd needs --annotations"),
        (["--form", "folders", "--annotations", "FILE"], "--form folders has no annotation file; leave out"),
        (["--form", "nexar", "--annotations", "FILE", "--event_of.1", "boom"], "--event_of names boom; allowed: crash"),
        (["--form", "nexar", "--annotations", "FILE", "--event_of.7", "crash"], "names 7; the labels are 0, 1"),
        (["--form", "nexar", "--annotations", "FILE"], "none of its labels is an event of the schema: '1' (1)"),
        (["--form", "nexar", "--annotations", "FILE", "--event_of", '{"1": "crash", "0": "nearmiss"}',
          "--fractions", "[0.5,0.2,0.3]"], "every clip has an official split; leave out --fractions"),
        (["--form", "dota", "--annotations", "FILE"], "it is no JSON"),
        (["--form", "ccd", "--annotations", "absent.txt"], "absent.txt: it does not exist"),
        (["--form", "ccd", "--annotations", "FILE"], "train.csv, row 1: it is not vidname,[binlabels]"),
        (["--form", "nexar", "--annotations", "FILE", "--clips", "nope"], "nope: there is no such folder; give the"),
        (["--form", "folders", "--crash_csv", "FILE"], "--form folders and --crash_csv are both given"),
        (["--crash_csv", "FILE", "--event_of.1", "crash"], "say nothing without --form"),
    ],
)  # fmt: skip
def test_what_cannot_be(tmp_path, clips, capsys, options, message):
    text = write(tmp_path / "train.csv", "id,target,split\na,1,train\nb,0,val\n")
    given = [str(text) if option == "FILE" else option for option in options]
    args = ["prepare", "--out", str(tmp_path / "out"), "--clips", str(clips("a.mp4", "b.mp4")), *given]
    assert main(args) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()
