"""`audit` of a dataset with leaks: a smaller, trimmed copy and a mirror image in other splits, a parted group."""

import csv
import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.copies import copied, samples_of, spoil
from vlm_crash.cli import main
from vlm_crash.data.audit_copies import PRINTS_FILE
from vlm_crash.data.prepared import DATASET_FILE


def encode_again(source: Path, target: Path, scale: float = 1.0, skip_s: float = 0.0, mirror: bool = False) -> None:
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        rate = stream.average_rate
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(stream) if (f.time or 0) >= skip_s]
    height, width = (int(side * scale) // 2 * 2 for side in frames[0].shape[:2])
    with av.open(str(target), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.options = width, height, "yuv420p", {"crf": "30"}
        for frame in frames:
            small = np.asarray(Image.fromarray(frame[:, ::-1] if mirror else frame).resize((width, height)))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(small), format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def leaking(prepared, tmp_path_factory):
    """The dataset, and (train, test) and (train, val) pairs that are one clip; another test clip is none."""
    dataset = copied(prepared, tmp_path_factory.mktemp("leaking"))
    train, val, test = (samples_of(dataset, split) for split in ("train", "val", "test"))
    encode_again(train[0].path, test[0].path, scale=0.5, skip_s=0.7)
    encode_again(train[1].path, val[0].path, mirror=True)
    spoil(test[1])
    return dataset, [(train[0], test[0]), (train[1], val[0])], test[1]


@pytest.fixture(scope="module")
def clean_out(prepared, tmp_path_factory):
    out = tmp_path_factory.mktemp("clean")
    assert main(["audit", str(prepared), "--out", str(out), "--num_workers", "2"]) == 0
    return out


def test_leaks_are_shown_and_end_with_1(leaking, tmp_path, capsys):
    dataset, pairs, bad = leaking
    assert main(["audit", str(dataset), "--out", str(tmp_path), "--num_workers", "2"]) == 1
    said = capsys.readouterr().out
    report = json.loads((tmp_path / "audit.json").read_text())
    found = {(p["first"]["id"], p["second"]["id"], p["kind"]) for p in report["pairs"] if p["across_splits"]}
    kinds = ("same frames", "mirrored frames")
    expected = [(*sorted((a.id, b.id)), kind) for (a, b), kind in zip(pairs, kinds, strict=True)]
    assert {(*sorted(ids), kind) for *ids, kind in found} == set(expected)
    assert report["is_leak"]
    assert "2 pairs of clips in different splits show the same" in said
    for pair in pairs:
        assert all(str(one.path) in said for one in pair)
    page = (tmp_path / "audit.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 4
    assert "http://" not in page and "https://" not in page
    unseen = next(f for f in report["findings"] if f["kind"] == "not looked at")
    assert [clip["id"] for clip in unseen["details"]["clips"]] == [bad.id]


def test_different_rendered_clips_are_no_leak_and_are_read_once(prepared, clean_out, monkeypatch):
    report = json.loads((clean_out / "audit.json").read_text())
    assert (report["pairs"], report["is_leak"]) == ([], False)
    assert not any(f["severity"] == "leak" for f in report["findings"])
    assert len({(one["event"], one["field"]) for one in report["shortcuts"]}) == 1 + 17 + 8
    before = (clean_out / PRINTS_FILE).read_text()
    (clean_out / PRINTS_FILE).write_text(before + '{"sha256": "cut o')
    monkeypatch.setattr("vlm_crash.data.audit_copies.fingerprint", lambda *_: pytest.fail("a clip is read again"))
    assert main(["audit", str(prepared), "--out", str(clean_out)]) == 0
    assert json.loads((clean_out / "audit.json").read_text())["findings"] == report["findings"]


def test_a_parted_group_is_a_leak_and_rows_are_compared(prepared, clean_out, tmp_path, capsys):
    dataset = copied(prepared, tmp_path)
    (tmp_path / PRINTS_FILE).write_text((clean_out / PRINTS_FILE).read_text())
    source = Path(json.loads((dataset / DATASET_FILE).read_text())["sources"]["crash"]["csv"])
    with source.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    crash = {s.id: split for split in ("train", "test") for s in samples_of(dataset, split) if s.event == "crash"}
    one, other = (next(id for id, split in crash.items() if split == wanted) for wanted in ("train", "test"))
    for row in rows:
        row["trip"] = "A" if f"crash_{row['video_id']}" in (one, other) else row["video_id"]
    rows[0]["Crash_vehicle_type"], rows[1]["Crash_vehicle_type"] = "Pickup truck", "pick-up truck"
    mine = tmp_path / "mine_crash.csv"
    with mine.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows([*rows, {**rows[-1], "video_id": "99"}])
    args = ["audit", str(dataset), "--out", str(tmp_path), "--csvs.crash", str(mine), "--group_column", "trip"]
    capsys.readouterr()
    nearmiss = Path(json.loads((dataset / DATASET_FILE).read_text())["sources"]["nearmiss"]["csv"])
    with_trip = tmp_path / "mine_nearmiss.csv"
    lines = nearmiss.read_text(encoding="utf-8").splitlines()
    with_trip.write_text("\n".join([f"{lines[0]},trip", *(f"{line}," for line in lines[1:])]) + "\n", encoding="utf-8")
    assert main([*args, "--csvs.nearmiss", str(with_trip)]) == 1
    said = capsys.readouterr().out
    assert "leak: 1 group of the column trip stand in several splits: 'A'" in said
    assert one in said and other in said
    assert "99.mp4): no such clip" in said
    assert "'Pickup truck' (1) and 'pick-up truck' (1) in the CSV seem to be one term" in said


def test_what_cannot_be(prepared, wrong, tmp_path):
    assert "no such file; give the folder that `prepare` wrote" in wrong("audit", tmp_path, "--out", tmp_path / "a")
    assert "num_workers=0 is below 1" in wrong("audit", prepared, "--out", tmp_path / "a", "--num_workers", 0)
    file = tmp_path / "readme.md"
    file.write_text("no dataset")
    assert f"{file} is a file; give the folder that `prepare` wrote" in wrong("audit", file, "--out", tmp_path / "a")
    assert f"--out {file}: {file} is a file" in wrong("audit", prepared, "--out", file)
    args = ("audit", prepared, "--out", tmp_path / "a")
    assert "'boom' is no event of the dataset; allowed: crash, nearmiss" in wrong(*args, "--csvs.boom", file)
    assert "nope.csv: no such file; give" in wrong(*args, "--csvs.crash", tmp_path / "nope.csv")
    assert f"--csvs.crash {tmp_path}: it is a folder; give" in wrong(*args, "--csvs.crash", tmp_path)
    assert "missing columns: trip" in wrong("audit", prepared, "--out", tmp_path / "a", "--group_column", "trip")
