"""Frames of a page: as large as the room allows, never more than it, and a reason where there is none."""

import base64
import io
from pathlib import Path

from PIL import Image

from vlm_crash.evaluation.report_frames import LEVELS, pictures


def test_the_room_of_a_clip_decides_how_its_frames_are_kept(make_clip, tmp_path: Path):
    places = [{"path": str(make_clip("a.mp4")), "event": "crash", "video": "a.mp4"}]

    def kept(num_bytes: int):
        (found,) = pictures(places, tmp_path / "page.html", None, num_bytes)
        assert sum(map(len, found.images)) <= num_bytes
        return found

    full = kept(10**6)
    assert (len(full.images), full.size, full.link) == (8, LEVELS[0].box, "./a.mp4")
    some = kept(sum(map(len, full.images)) // 2)
    assert 0 < len(some.images) <= 8 and some.size != full.size
    assert set(some.times) <= set(full.times) and len(some.times) == len(some.images)
    assert Image.open(io.BytesIO(base64.b64decode(some.images[0]))).size[0] <= some.size[0]
    none = kept(100)
    assert none.images == () and none.reason == "a page of so many clips has no room for frames"


def test_clips_keep_their_order_and_one_that_is_not_there_says_so(make_clip, tmp_path: Path):
    make_clip("clips/crash/b #1.mp4")
    names = ["gone.mp4", "b #1.mp4", "gone too.mp4"]
    places = [{"path": "", "event": "crash", "video": name} for name in names]
    found = list(pictures(places, tmp_path / "out/page.html", tmp_path / "clips", 10**6))
    assert [len(one.images) for one in found] == [0, 8, 0]
    assert "gone too.mp4 is not there" in found[2].reason
    assert found[1].link == "./../clips/crash/b%20%231.mp4"
