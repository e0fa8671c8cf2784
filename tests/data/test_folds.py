import json
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from vlm_crash.data.folds import fold_splits, groups_of, make_folds, write_fold
from vlm_crash.data.prepared import load_prepared, load_samples
from vlm_crash.schema.fields import load_schema
from vlm_crash.schema.records import VideoSample


def clips(**counts: int) -> list[VideoSample]:
    return [
        VideoSample(f"{event}_{i}", f"{i}.mp4", Path(f"{i}.mp4"), event, None, None)
        for event, count in counts.items()
        for i in range(count)
    ]


def test_each_clip_is_tested_once_and_events_are_spread():
    samples = clips(crash=53, nearmiss=21)
    fold_of = make_folds(samples, {}, 5, seed=0)
    counts = Counter((id.split("_")[0], fold) for id, fold in fold_of.items())
    for event, num in (("crash", 53), ("nearmiss", 21)):
        assert {counts[event, fold] for fold in range(5)} == {num // 5, num // 5 + 1}
    assert max(Counter(fold_of.values()).values()) - min(Counter(fold_of.values()).values()) <= 2
    assert make_folds(random.Random(1).sample(samples, len(samples)), {}, 5, seed=0) == fold_of
    assert make_folds(samples, {}, 5, seed=1) != fold_of


def test_groups_stay_together_in_every_split_of_every_fold():
    samples = clips(crash=60, nearmiss=40)
    draw = random.Random(0)
    groups = {s.id: f"crash_{draw.randrange(15)}" for s in samples if draw.random() < 0.8}  # named like other clips
    fold_of = make_folds(samples, groups, 4, seed=0)
    assert max(Counter(fold_of.values()).values()) <= 25 + max(Counter(groups.values()).values())
    tested: Counter[str] = Counter()
    for fold in range(4):
        splits = fold_splits(samples, groups, fold_of, fold, 0.2, seed=0)
        assert set(splits) == {sample.id for sample in samples}
        for group in set(groups.values()):
            assert len({splits[id] for id, other in groups.items() if other == group}) == 1
        assert min(Counter(splits.values())[name] for name in ("train", "val", "test")) > 0
        tested.update(id for id, split in splits.items() if split == "test")
    assert tested == Counter(sample.id for sample in samples)


def test_what_cannot_be_folded():
    with pytest.raises(ValueError, match="folds=4 must be from 2 to the number of groups of clips, 2"):
        make_folds(clips(crash=4), {"crash_0": "a", "crash_1": "a", "crash_2": "b", "crash_3": "b"}, 4, 0)
    with pytest.raises(ValueError, match="folds=1 must be from 2"):
        make_folds(clips(crash=4), {}, 1, 0)
    with pytest.raises(ValueError, match=r"val_fraction=1\.0 must be"):
        fold_splits(clips(crash=4), {}, {f"crash_{i}": i % 2 for i in range(4)}, 0, 1.0, 0)


def test_a_fold_is_a_dataset_that_copies_no_clip(prepared: Path, tmp_path: Path):
    schema = load_schema()
    samples = load_samples(prepared, schema)
    groups = groups_of(prepared, samples)
    fold_of = make_folds(samples, groups, 3, seed=0)
    (tmp_path / "moved").mkdir()
    for file in prepared.iterdir():
        shutil.copy(file, tmp_path / "moved")
    for fold in range(3):
        out = tmp_path / f"fold-{fold}"
        write_fold(tmp_path / "moved", out, fold_splits(samples, groups, fold_of, fold, 0.2, 0), {"fold": fold})
        found = load_prepared(out, schema)
        assert {sample.id for sample in found["test"]} == {id for id, at in fold_of.items() if at == fold}
        assert sum(map(len, found.values())) == len(samples)
        assert {s.path for split in found.values() for s in split} == {s.path.resolve() for s in samples}
        assert sorted(path.name for path in out.iterdir()) == ["dataset.json", "diy_ft_data.json", "splits.json"]


def test_groups_are_those_of_prepare(prepared: Path, tmp_path: Path):
    """Without them in splits.json: the clips of equal bytes, or a message where a column had told them."""
    samples = load_samples(prepared, load_schema())
    splits = json.loads((prepared / "splits.json").read_text())
    assert groups_of(prepared, samples) == splits["groups"] == {}  # no rendered clip is there twice
    for file in prepared.iterdir():
        shutil.copy(file, tmp_path)
    one, *rest = samples
    (tmp_path / "splits.json").write_text(json.dumps({**splits, "groups": {one.id: "trip"}}))
    assert groups_of(tmp_path, samples) == {one.id: "trip"}
    old = {name: value for name, value in splits.items() if name != "groups"}
    (tmp_path / "splits.json").write_text(json.dumps(old))
    twin = VideoSample("twin", "twin.mp4", rest[0].path, "crash", None, None)
    assert groups_of(tmp_path, [*samples, twin]) == {rest[0].id: rest[0].id, "twin": rest[0].id}
    (tmp_path / "splits.json").write_text(json.dumps({**old, "group_by": "trip"}))
    with pytest.raises(ValueError, match="does not say which clips share their 'trip'; run `prepare` again"):
        groups_of(tmp_path, samples)
