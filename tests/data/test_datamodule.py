"""Which samples each stage sees, and that every option of the section acts."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vlm_crash.data.clip_sources import loose_clips
from vlm_crash.data.collate import Batch
from vlm_crash.data.datamodule import CrashDataModule
from vlm_crash.data.dataset import ModelInputs
from vlm_crash.data.frame_options import DEFAULT_NUM_FRAMES, FrameOptions
from vlm_crash.data.prepared import load_prepared
from vlm_crash.models.tokenizers import load_tokenizer
from vlm_crash.schema.fields import Schema, load_schema
from vlm_crash.schema.records import VideoSample
from vlm_crash.video.guarded import probe


@pytest.fixture(scope="module")
def inputs(tiny_model: Path) -> ModelInputs:
    return ModelInputs(load_tokenizer(tiny_model), 16, 32, prompt="short", system_message="")


def connected(inputs: ModelInputs, stage: str, **options) -> CrashDataModule:
    data = CrashDataModule(**{"num_workers": 0, "num_frames": 1, **options})
    data.connect(inputs)
    data.setup(stage)
    return data


def ids(loader) -> list[str]:
    return [sample.id for batch in loader for sample in batch.samples]


def test_seed_is_the_order_of_training(inputs, prepared):
    first, same, other = (ids(connected(inputs, "fit", folder=prepared, seed=s).train_dataloader()) for s in (0, 0, 1))
    assert first == same
    assert first != other and sorted(first) == sorted(other)


def test_splits(inputs, prepared):
    fit = connected(inputs, "fit", folder=prepared)
    assert {split: len(samples) for split, samples in fit.samples.items()} == {"train": 10, "val": 4}
    assert ids(fit.val_dataloader()) == [sample.id for sample in fit.samples["val"]]
    assert len(ids(connected(inputs, "test", folder=prepared).test_dataloader())) == 6
    sizes = {
        s: len(connected(inputs, "predict", folder=prepared, split=s).samples["predict"]) for s in ("train", "val")
    }
    assert sizes == {"train": 10, "val": 4}


@pytest.mark.parametrize("limit", [120.0, 5, 0, None])
def test_how_long_a_clip_may_take(inputs, prepared, limit):
    options = {} if limit == 120 else {"clip_timeout_s": limit}
    recipe = connected(inputs, "fit", folder=prepared, **options).recipe
    assert recipe is not None and recipe.clip_timeout_s == limit


def test_num_videos(inputs, prepared, demo_clips, tmp_path):
    folders = {"crash_dir": demo_clips / "crash", "nearmiss_dir": demo_clips / "nearmiss"}

    def videos(**options) -> list[str]:
        samples = connected(inputs, "predict", **options).samples["predict"]
        return [f"{sample.event} {sample.video}" for sample in samples]

    assert videos(**folders, num_videos=2) == ["crash 1.mp4", "crash 2.mp4", "nearmiss 1.mp4", "nearmiss 2.mp4"]
    for number in range(11, 13):
        (tmp_path / f"{number}.mp4").symlink_to(demo_clips / "crash" / "1.mp4")
    for clip in (demo_clips / "crash").iterdir():
        (tmp_path / clip.name).symlink_to(clip)
    assert len(videos(crash_dir=tmp_path)) == 10
    assert len(videos(crash_dir=tmp_path, num_videos=0)) == 12
    assert len(videos(clips=tmp_path)) == 12
    assert videos(clips=[demo_clips / "crash" / "3.mp4", tmp_path], num_videos=1) == ["None 3.mp4"]
    assert len(videos(folder=prepared)) == 6
    assert sorted(name.split()[0] for name in videos(folder=prepared, num_videos=1)) == ["crash", "nearmiss"]
    with pytest.raises(ValueError, match="num_videos=-1 is negative"):
        videos(**folders, num_videos=-1)


def test_a_prompt_says_what_is_true_of_its_frames(inputs, prepared):
    """But a model that was trained with `event` under other words is asked in these again."""

    def asked(inputs, **options):
        recipe = connected(inputs, "fit", folder=prepared, **options).recipe
        sample = recipe.tokenizer("Q?", 4, 2.0)
        return "uniformly" in recipe.tokenizer.tokenizer.decode(sample.input_ids_S), recipe.remembered

    uniform, middle = asked(inputs)
    is_uniform, event = asked(inputs, frame_rule="event")
    assert uniform and not is_uniform and (middle["told_sampling"], event["told_sampling"]) == ("uniform", "event")
    again = replace(inputs, frame_rule="event", told_sampling="event")
    before = replace(inputs, frame_rule="event")  # trained when every prompt said so
    for known, options, want in (
        (again, {}, False),
        (again, {"frame_rule": "middle"}, True),
        (before, {}, True),
        (before, {"frame_rule": "event"}, True),
    ):
        is_uniform, remembered = asked(known, **options)
        assert is_uniform == want and remembered["told_sampling"] == ("uniform" if want else "event")


def test_number_of_frames(inputs, prepared):
    assert connected(inputs, "fit", folder=prepared, num_frames=None).recipe.sampling.num_frames == DEFAULT_NUM_FRAMES
    told = ModelInputs(**{**vars(inputs), "num_frames": 8})
    assert connected(told, "fit", folder=prepared, num_frames=None).recipe.sampling.num_frames == 8
    data = connected(told, "predict", folder=prepared, num_frames=3, batch_size=2)
    assert next(iter(data.predict_dataloader())).pixel_values_N3HW.shape == (6, 3, 32, 32)


def test_options_reach_the_recipe(inputs, prepared):
    plain = connected(inputs, "fit", folder=prepared).recipe
    assert (plain.prompt, plain.tell_event, plain.blank_frames) == ("short", False, False)
    given = connected(inputs, "fit", folder=prepared, prompt="full", tell_event=True, blank_frames=True).recipe
    assert (given.prompt, given.tell_event, given.blank_frames) == ("full", True, True)
    assert connected(inputs, "fit", folder=prepared, prompt="dataset").recipe.prompt == "dataset"
    with pytest.raises(ValueError, match="tell_event would do nothing"):
        connected(inputs, "fit", folder=prepared, prompt="dataset", tell_event=True)


def test_what_is_given_goes_before_what_the_folder_says(inputs, prepared, tmp_path):
    plain = connected(inputs, "fit", folder=prepared).recipe
    defaults = {"frame_rule": "middle", "preset": "training", "template": "internvl2_5", "question": None}
    assert {name: plain.remembered[name] for name in defaults} == defaults
    told = {
        "frame_rule": "duration",
        "frames": {"min_frames": 1},
        "preset": "card",
        "template": "internlm2-chat",
        "question": "Well?",
    }
    folder = replace(inputs, **told)
    assert {name: connected(folder, "fit", folder=prepared).recipe.remembered[name] for name in told} == told
    (tmp_path / "own.txt").write_text("What now?\n")
    given = {"frame_rule": "middle", "preset": "training", "template": "internvl2_5"}
    recipe = connected(folder, "fit", folder=prepared, **given, prompt_file=tmp_path / "own.txt").recipe
    assert recipe.remembered == {**plain.remembered, "question": "What now?"}
    longer = connected(folder, "fit", folder=prepared, num_frames=4, frames=FrameOptions(min_frames=2)).recipe.sampling
    assert (longer.rule, longer.min_frames) == ("duration", 2)
    # A prompt that is asked for is asked, whatever the folder was trained with.
    assert connected(folder, "fit", folder=prepared, prompt="full").recipe.question is None


def test_a_labs_own_wording_is_asked(inputs, prepared, tmp_path):
    file = tmp_path / "own.txt"
    file.write_text("Was war los?")
    data = connected(inputs, "predict", folder=prepared, prompt_file=file, preset="card", num_videos=1)
    batch = next(iter(data.predict_dataloader()))
    asked = inputs.tokenizer.decode(batch.input_ids_BS[0]).replace("<IMG_CONTEXT>", "")
    assert asked == "<|im_start|>user\nFrame1: <img></img>\nWas war los?<|im_end|>\n<|im_start|>assistant\n"
    with pytest.raises(ValueError, match="both given"):
        CrashDataModule(prompt="short", prompt_file=file)
    with pytest.raises(ValueError, match="a lab's own question, so tell_event would do nothing"):
        connected(inputs, "predict", folder=prepared, prompt_file=file, tell_event=True)


def test_a_rule_that_takes_more_of_longer_clips(inputs, prepared):
    """And the prompt has as many places as there are frames."""
    options = {"folder": prepared, "num_frames": 20, "frame_rule": "fps", "batch_size": 3, "num_videos": 3}
    batches = list(connected(inputs, "predict", **options, frames=FrameOptions(fps=2.0)).predict_dataloader())
    counts = [count for batch in batches for count in batch.frames_per_clip]
    samples = [sample for batch in batches for sample in batch.samples]
    assert counts == [int(2 * probe(sample.path).duration_s + 0.5) for sample in samples] and len(set(counts)) > 1
    image = inputs.tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
    places = [int((row == image).sum()) for batch in batches for row in batch.input_ids_BS]
    assert places == [count * inputs.tokens_per_frame for count in counts]


def test_a_window_of_each_clip(inputs, prepared):
    options = {"folder": prepared, "num_videos": 1, "num_frames": 4}
    window = connected(inputs, "predict", **options, frames=FrameOptions(start_s=1.0, end_s=1.5))
    (item,) = (window.recipe.item(sample, supervised=False) for sample in window.samples["predict"][:1])
    assert "The video lasts for 0.50 seconds" in inputs.tokenizer.decode(item.input_ids_S)


def test_the_frame_rule_acts(inputs, prepared):
    options = {"folder": prepared, "num_videos": 1, "num_frames": 3}
    middle, card = (
        next(iter(connected(inputs, "predict", **options, frame_rule=rule).predict_dataloader()))
        for rule in ("middle", "card")
    )
    assert torch.equal(middle.input_ids_BS, card.input_ids_BS)
    assert not torch.equal(middle.pixel_values_N3HW, card.pixel_values_N3HW)
    with pytest.raises(
        ValueError, match=r"frame_rule='first' is not one of \['middle', 'card', 'fps', 'duration', 'event'\]"
    ):
        connected(inputs, "predict", **options, frame_rule="first")


def test_a_folder_beside_loose_clips_is_refused(inputs, prepared, demo_clips):
    with pytest.raises(ValueError, match="only one can be predicted"):
        connected(inputs, "predict", folder=prepared, clips=demo_clips / "crash")


def test_events_take_turns_in_validation(inputs, prepared):
    events = [sample.event for sample in connected(inputs, "fit", folder=prepared).samples["val"]]
    assert set(events[:2]) == {"crash", "nearmiss"}


def test_padding_sides(inputs, prepared):
    fit, predict = (connected(inputs, stage, folder=prepared, batch_size=2) for stage in ("fit", "predict"))
    batch = next(iter(fit.train_dataloader()))
    assert batch.labels_BS is not None and bool(batch.attention_mask_BS[:, 0].all())
    batch = next(iter(predict.predict_dataloader()))
    assert batch.labels_BS is None and bool(batch.attention_mask_BS[:, -1].all())


def test_workers_give_what_one_process_gives_whatever_their_random_state(inputs, prepared):
    """An item is a function of its index alone, so there is nothing in a worker that a seed could change."""

    def batches(seed: int, num_workers: int) -> list[Batch]:
        torch.manual_seed(seed)  # a worker's torch, numpy and random follow from it
        return list(connected(inputs, "fit", folder=prepared, num_workers=num_workers, batch_size=4).train_dataloader())

    for left, *others in zip(batches(3, 0), batches(3, 2), batches(4, 2), strict=True):
        for other in others:
            assert torch.equal(left.input_ids_BS, other.input_ids_BS)
            assert torch.equal(left.pixel_values_N3HW, other.pixel_values_N3HW)


def test_events_that_the_schema_lacks(inputs, demo_clips):
    with pytest.raises(ValueError, match=r"events \['flood'\], the schema has \['crash', 'nearmiss'\]"):
        connected(inputs, "predict", event_dirs={"flood": demo_clips / "crash"})


def test_no_training_clips(inputs, prepared, tmp_path):
    folder = tmp_path / "dataset"
    shutil.copytree(prepared, folder)
    text = (folder / "splits.json").read_text().replace('"train"', '"test"')
    (folder / "splits.json").write_text(text)
    with pytest.raises(ValueError, match="has no train clips"):
        connected(inputs, "fit", folder=folder)
    (folder / "splits.json").write_text(text.replace('"test"', '"val"'))
    with pytest.raises(ValueError, match=r"the split test of .* has no clips"):
        connected(inputs, "predict", folder=folder)


def test_loose_clips_keep_their_order(demo_clips):
    samples = loose_clips({}, [demo_clips / "nearmiss", demo_clips / "crash" / "1.mp4"], None, load_schema())
    assert [sample.video for sample in samples] == [*(f"{n}.mp4" for n in range(1, 11)), "1.mp4"]
    assert {sample.event for sample in samples} == {None}


@pytest.mark.parametrize(
    ("asked", "is_told"),
    [
        ({"crash": "Describe the crash.", "nearmiss": "Describe the near-miss."}, True),
        ({"crash": "Describe the accident.", "nearmiss": "Almost a crash: describe it."}, True),
        ({"crash": "Is it a crash or a near miss?", "nearmiss": "Is it a crash or a near miss?"}, False),
        ({"crash": "What happens?", "nearmiss": "What happens?"}, False),
    ],
)
def test_a_human_turn_that_gives_the_event_away_is_told(inputs, prepared, monkeypatch, caplog, asked, is_told):
    num_clips = len(load_prepared(prepared, load_schema())["test"])

    def with_question(folder: Path, schema: Schema) -> dict[str, list[VideoSample]]:
        splits = load_prepared(folder, schema)
        return {
            split: [replace(s, question=f"<image>\n{asked[s.event]}") for s in samples]
            for split, samples in splits.items()
        }

    monkeypatch.setattr("vlm_crash.data.datamodule.load_prepared", with_question)
    connected(inputs, "test", folder=prepared, prompt="dataset")
    assert (f"the human turn of {num_clips} clips" in caplog.text) == is_told
    caplog.clear()
    connected(inputs, "test", folder=prepared, prompt="short")
    assert "human turn" not in caplog.text


# ------------------------------------------------------------------------------------------------------- batching


def train_clips(data: CrashDataModule, epoch: int = 0) -> list[Batch]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


def test_lengths_are_known_without_the_clips(inputs, prepared, monkeypatch):
    data = connected(inputs, "fit", folder=prepared, batching="grouped", batch_size=2)
    found = [int(mask.sum()) for batch in data.val_dataloader() for mask in batch.attention_mask_BS]
    monkeypatch.setattr("vlm_crash.data.dataset.read_frames", None)
    told = data.recipe.lengths(data.samples["val"])
    # The longest duration that a prompt can tell has some digits more than a clip's own.
    assert all(0 <= most - length <= 4 for most, length in zip(told, found, strict=True))
    assert len(set(found)) > 1


@pytest.mark.parametrize("batching", ["padded", "grouped", "packed"])
def test_an_epoch_has_every_clip_once_and_as_many_batches_as_it_says(inputs, prepared, batching):
    data = connected(inputs, "fit", folder=prepared, batching=batching, batch_size=3)
    whole = {sample.id for sample in data.samples["train"]}
    for epoch in range(2):
        found = train_clips(data, epoch)
        assert len(found) == data.num_train_batches
        seen = [sample.id for batch in found for sample in batch.samples]
        assert len(seen) == len(whole) and set(seen) == whole
        assert all((batch.clip_lengths is not None) == (batching == "packed") for batch in found)
    if batching == "packed":
        assert all(batch.num_tokens == batch.input_ids_BS.numel() <= data.pack_tokens for batch in found)
    assert all(batch.clip_lengths is None for batch in data.val_dataloader()), "validation stays padded"


def test_workers_read_packs(inputs, prepared):
    plain, parallel = (
        train_clips(connected(inputs, "fit", folder=prepared, batching="packed", batch_size=3, num_workers=number))
        for number in (0, 2)
    )
    for left, right in zip(plain, parallel, strict=True):
        assert torch.equal(left.input_ids_BS, right.input_ids_BS)
        assert torch.equal(left.pixel_values_N3HW, right.pixel_values_N3HW)


def at(data: CrashDataModule, batches: int) -> CrashDataModule:
    """As it is in a run that has taken so many batches of its first epoch."""
    progress = SimpleNamespace(current=SimpleNamespace(processed=batches))
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        global_rank=0, world_size=1, fit_loop=loop, current_epoch=0, accumulate_grad_batches=1
    )
    return data


@pytest.mark.parametrize("batching", ["grouped", "packed"])
def test_a_place_in_the_epoch_is_found_again(inputs, prepared, batching):
    options = {"folder": prepared, "batching": batching, "batch_size": 2}
    data = connected(inputs, "fit", **options)
    whole = [[sample.id for sample in batch.samples] for batch in train_clips(data)]
    state = at(data, 2).state_dict()
    assert state["clips"] == sum(map(len, whole[:2])) and state["kind"]["batching"] == batching
    again = connected(inputs, "fit", **options)
    again.load_state_dict(state)
    assert again.batches_of(state) == 2
    assert [[sample.id for sample in batch.samples] for batch in again.train_dataloader()] == whole[2:]
    other = connected(inputs, "fit", **{**options, "batching": "padded"})
    other.load_state_dict(state)
    with pytest.raises(ValueError, match=f"stopped inside an epoch of {batching} batches"):
        other.train_dataloader()


def test_batches_that_cannot_be_are_refused(inputs, prepared):
    for options, message in (
        ({"batching": "sorted"}, r"not one of \['padded', 'grouped', 'packed'\]"),
        ({"pack_tokens": 100}, "pack_tokens=100 has no effect with batching='padded'"),
        ({"batching": "packed", "pack_tokens": 0}, "pack_tokens=0 is below 1"),
        ({"batching": "packed", "pack_tokens": 60}, "a pack holds 60; set --data.pack_tokens to"),
        ({"batching": "packed"}, "no two clips fit into a pack"),
        ({"batching": "grouped"}, "nothing to group"),
    ):
        with pytest.raises(ValueError, match=message):
            connected(inputs, "fit", folder=prepared, **options)
