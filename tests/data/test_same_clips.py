"""A run goes on inside an epoch with the clips that it was stopped with, or not at all."""

from pathlib import Path

import pytest

from tests.data.test_augmented import ALL, sums, train
from tests.data.test_datamodule import at, connected
from vlm_crash.data.dataset import ModelInputs
from vlm_crash.data.same_clips import clips_seen, record_of
from vlm_crash.models.tokenizers import load_tokenizer
from vlm_crash.schema.records import VideoSample


@pytest.fixture(scope="module")
def inputs(tiny_model: Path) -> ModelInputs:
    return ModelInputs(load_tokenizer(tiny_model), 16, 32, prompt="short", system_message="")


def clips(*numbers: int) -> list[VideoSample]:
    return [VideoSample(f"crash_{n}", f"{n}.mp4", Path(f"{n}.mp4"), "crash", None, None) for n in numbers]


def test_the_place_in_an_epoch_is_one_among_these_clips():
    before = clips(1, 2, 3, 4)
    place = {"clips": 2, "training_clips": record_of(before)}
    assert clips_seen(place, before) == 2
    with pytest.raises(ValueError, match=r"an epoch of 4 training clips, and now there are 3: .* clips\.csv back"):
        clips_seen(place, clips(1, 2, 3))
    for others in (clips(1, 2, 3, 5), clips(2, 1, 3, 4)):
        with pytest.raises(ValueError, match="of 4 training clips, and now they are other ones"):
            clips_seen(place, others)


def test_between_epochs_the_clips_may_change():
    before = record_of(clips(1, 2, 3, 4))
    for now in (clips(1, 2), clips(1, 2, 3, 4), clips(1, 2, 3, 4, 5, 6)):
        assert clips_seen({"clips": 4, "training_clips": before}, now) == len(now)
        assert clips_seen({"clips": 0, "training_clips": before}, now) == 0


def test_a_checkpoint_from_before_this_was_kept_is_believed():
    assert clips_seen({"clips": 2}, clips(1, 2, 3)) == 2


def test_a_check_between_a_stop_and_a_resume_is_told(inputs, prepared):
    """Whole epochs have one clip more or less; a part of one is not gone on with."""
    data = connected(inputs, "fit", folder=prepared)
    inside, end = at(data, 4).state_dict(), at(data, 10).state_dict()
    same, fewer = (connected(inputs, "fit", folder=prepared) for _ in range(2))
    same.load_state_dict(inside)
    assert same.resumed == (0, 4) and same.batches_of(inside) == 4
    fewer.samples["train"], fewer.lengths = fewer.samples["train"][1:], fewer.lengths[1:]
    with pytest.raises(ValueError, match="inside an epoch of 10 training clips, and now there are 9"):
        fewer.load_state_dict(inside)
    fewer.load_state_dict(end)
    assert fewer.batches_of(end) == 9 and fewer._train_sampler().resumed == (1, 0)
    more = connected(inputs, "fit", folder=prepared)
    more.samples["train"] += more.samples["val"]
    more.lengths += [0] * 4
    more.load_state_dict(end)
    assert more.batches_of(end) == 14 and more._train_sampler().resumed == (1, 0)
    # Scoring and prediction read such a checkpoint, too, and go on with nothing.
    connected(inputs, "test", folder=prepared).load_state_dict(inside)


def test_what_is_drawn_for_a_clip_stays_when_another_goes(inputs, prepared):
    whole, changed = train(inputs, prepared, augment=ALL)
    found = sums(changed)
    fewer = connected(inputs, "fit", folder=prepared, augment=ALL)
    gone = fewer.samples["train"].pop(2)
    fewer.lengths.pop()
    left = sums(list(fewer.train_dataloader()))
    assert left == {name: value for name, value in found.items() if name != gone.id}
    assert len(left) == len(whole.samples["train"]) - 1 == 9
