"""`frames`: pictures of what the model sees, and one message for what cannot be shown."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.video.conftest import frame_numbers, write_clip
from vlm_crash.cli import main
from vlm_crash.video.image_transform import resized


def pictures(folder, key: str) -> np.ndarray:
    said = json.loads((folder / "frames.json").read_text())
    return np.stack([np.asarray(Image.open(folder / line[key])) for line in said["frames"]])


def test_pictures_sheet_and_json(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", num_frames=40)
    out = tmp_path / "out"
    assert main(["frames", str(clip), "--num_frames", "8", "--out", str(out), "--image_size", "32"]) == 0
    said = json.loads((out / "frames.json").read_text())
    assert said["reader"] == "pyav"
    assert [line["index"] for line in said["frames"]] == [2, 7, 12, 17, 22, 27, 32, 37]
    assert [line["time_s"] for line in said["frames"]] == pytest.approx([i / 10 for i in range(2, 40, 5)])
    shown_FHWC, seen_FHWC = pictures(out, "file"), pictures(out, "seen")
    assert frame_numbers(shown_FHWC) == list(range(2, 40, 5))
    np.testing.assert_array_equal(seen_FHWC, resized(shown_FHWC, 32))
    sheet = np.asarray(Image.open(out / "sheet.png"))
    assert sheet.shape == (3 * 250 + 6, 3 * 230 + 6, 3)
    for number, level in enumerate(shown_FHWC[:, 24, 32, 0]):  # the middle of each picture, in its place
        row, column = divmod(number, 3)
        assert abs(int(sheet[6 + row * 250 + 132, 6 + column * 230 + 112, 0]) - int(level)) <= 2
        assert (sheet[6 + row * 250 : 24 + row * 250, 6 + column * 230 : 6 + column * 230 + 80] < 100).any()  # a label


def test_a_window_and_another_rule(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", num_frames=40)
    options = ["--num_frames", "2", "--start_s", "1", "--end_s", "2", "--frame_rule", "card"]
    assert main(["frames", str(clip), "--out", str(tmp_path / "out"), *options]) == 0
    found = [line["index"] for line in json.loads((tmp_path / "out/frames.json").read_text())["frames"]]
    assert all(10 <= index < 20 for index in found)
    assert frame_numbers(pictures(tmp_path / "out", "file")) == found


def test_a_rule_that_takes_fewer(tmp_path):
    """Two a second of four seconds, and not the 32 that are the most."""
    clip = write_clip(tmp_path / "a.mp4", num_frames=40)
    assert main(["frames", str(clip), "--out", str(tmp_path / "out"), "--frame_rule", "fps", "--fps", "2"]) == 0
    found = [line["index"] for line in json.loads((tmp_path / "out/frames.json").read_text())["frames"]]
    assert len(found) == 8
    assert frame_numbers(pictures(tmp_path / "out", "file")) == found


def test_several_clips_get_a_folder_each_and_a_bad_one_is_named(tmp_path, capsys):
    good, other = write_clip(tmp_path / "a.mp4"), write_clip(tmp_path / "b.gif", codec="gif")
    bad = tmp_path / "c.mp4"
    bad.write_bytes(b"")
    code = main(["frames", str(good), str(bad), str(other), "--num_frames", "2", "--out", str(tmp_path / "out")])
    assert code == 2
    assert "c.mp4: the file is empty" in capsys.readouterr().err
    assert (tmp_path / "out/a.mp4/sheet.png").is_file() and (tmp_path / "out/b.gif/sheet.png").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num_frames", "0"], "num_frames=0"),
        (["--reader", "opencv"], "reader='opencv' is not one of"),
        (["--frame_rule", "best"], "frame_rule='best' is not one of"),
        (["--image_size", "0"], "image_size=0"),
        (["--start_s", "3", "--end_s", "2"], "there is no window"),
        (["--start_s", "30"], "the window begins at 30 s"),
        (["--frames", "3"], "frames"),
    ],
)
def test_bad_input_is_one_message(tmp_path, capsys, options, message):
    clip = write_clip(tmp_path / "a.mp4")
    assert main(["frames", str(clip), "--out", str(tmp_path / "out"), *options]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_a_reader_that_is_not_installed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("vlm_crash.video.other_readers.find_spec", lambda name: None)
    clip = write_clip(tmp_path / "a.mp4")
    assert main(["frames", str(clip), "--reader", "torchcodec", "--out", str(tmp_path / "out")]) == 2
    assert "torchcodec is not installed; pip install torchcodec" in capsys.readouterr().err
