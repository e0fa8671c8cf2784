"""Clips and CSVs on disk: readable, in the old format, and the same kind of file for both events."""

import csv
from pathlib import Path

import av
import numpy as np
import pytest

from vlm_crash.demo.clips import MOST_SEEDS, moments, num_frames, plan_dataset, write_clip, write_dataset
from vlm_crash.demo.draw import render_frame
from vlm_crash.demo.scene import sample_scene
from vlm_crash.demo.world import CUE_LEAD
from vlm_crash.schema import load_schema

NUM_CLIPS = 24


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo_clips")
    write_dataset(out, NUM_CLIPS, seed=3)
    return out


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_clip_is_h264_with_every_frame_at_its_rate(tmp_path: Path) -> None:
    scene = sample_scene(4)
    write_clip(scene, tmp_path / "1.mp4")
    with av.open(str(tmp_path / "1.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 320, 180)
        assert stream.average_rate == scene.fps
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(frames) == num_frames(scene)
    middle = len(frames) // 2
    drawn = render_frame(scene, middle / scene.fps)
    assert np.abs(frames[middle].astype(int) - drawn).mean() < 12


def test_the_decisive_second_in_less_time() -> None:
    scene = sample_scene(4)
    plain, short = moments(scene), moments(scene, 0.3)
    assert plain == [index / scene.fps for index in range(num_frames(scene))]
    turn_s = scene.duration_s - CUE_LEAD
    assert len(short) == round((turn_s + 0.3) * scene.fps)
    before = [time_s for time_s in plain if time_s <= turn_s]
    assert short[: len(before)] == before
    assert scene.duration_s - 1 / scene.fps * CUE_LEAD / 0.3 <= short[-1] <= scene.duration_s
    assert short == sorted(short)


@pytest.mark.parametrize("place", [0.0, 0.3, 1.0])
def test_the_decisive_second_anywhere(place: float) -> None:
    """Forth and back around the moment, in steps as small as the clip's frames allow, and no event before or after."""
    scene = sample_scene(4)
    shown = np.array(moments(scene, 0.3, place))
    assert len(shown) == len(moments(scene, 0.3))
    times_s, turn_s = np.arange(len(shown)) / scene.fps, scene.duration_s - CUE_LEAD
    start_s = place * (len(shown) / scene.fps - 0.3)
    inside = (times_s > start_s) & (times_s < start_s + 0.3)
    assert (shown[inside] > turn_s).all() and (shown[~inside] <= turn_s + 1e-9).all() and inside.sum() >= 3
    assert scene.duration_s - 1 / scene.fps * CUE_LEAD / 0.15 <= shown.max() <= scene.duration_s
    assert shown.min() >= 0 and np.abs(np.diff(shown)).max() <= CUE_LEAD / 0.15 / scene.fps + 1e-9


def test_an_odd_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="odd side"):
        write_clip(sample_scene(0), tmp_path / "1.mp4", (321, 180))


def test_the_csvs_have_the_old_columns_and_the_scenes_values(dataset: Path) -> None:
    schema = load_schema()
    for event, name in (("crash", "AV_crash_modified_r.csv"), ("nearmiss", "AV_nearmiss_modified_r.csv")):
        rows = _rows(dataset / name)
        assert len(rows) == NUM_CLIPS // 2
        assert list(rows[0])[:2] == ["video_id", "duration"]
        assert len(rows[0]) == 2 + len(schema.event(event).fields)
        assert ("Crash with" in rows[0]) == (event == "crash")
        seeds = {number: seed for planned, number, seed in plan_dataset(NUM_CLIPS, 3) if planned == event}
        for row in rows:
            scene = sample_scene(seeds[int(row["video_id"])], event)
            assert row["Light_condition"] == scene.values["Light_condition"]
            assert float(row["duration"]) == pytest.approx(scene.duration_s, abs=1e-3)
            assert (dataset / event / f"{row['video_id']}.mp4").is_file()


def test_one_process_writes_what_two_write(dataset: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path, 4, seed=3, workers=1)
    for event in ("crash", "nearmiss"):
        for number in (1, 2):
            clip = f"{event}/{number}.mp4"
            assert (tmp_path / clip).read_bytes() == (dataset / clip).read_bytes()


def test_file_sizes_do_not_tell_the_event(tmp_path: Path) -> None:
    """A crash and a near miss of the same scene differ far less in size than two scenes of the same event do."""
    sizes = []
    for seed in range(8):
        pair = [sample_scene(seed, event) for event in ("crash", "nearmiss")]
        for scene in pair:
            write_clip(scene, tmp_path / f"{scene.event}.mp4")
        sizes.append([(tmp_path / f"{scene.event}.mp4").stat().st_size / scene.duration_s for scene in pair])
    crash, nearmiss = np.log(np.array(sizes)).T
    assert abs(np.mean(crash - nearmiss)) < 0.3 * np.std(nearmiss)


def test_the_plan_keeps_datasets_apart_and_refuses_what_it_cannot_do() -> None:
    seeds = [{scene_seed for _, _, scene_seed in plan_dataset(500, seed)} for seed in (0, 1)]
    assert not seeds[0] & seeds[1]
    assert max(seed for _, _, seed in plan_dataset(50, MOST_SEEDS - 1)) < 1_000_000_000
    with pytest.raises(ValueError, match="num_clips=1 is not in"):
        plan_dataset(1, 0)
    with pytest.raises(ValueError, match="seed=1000 is not in"):
        plan_dataset(10, 1000)
