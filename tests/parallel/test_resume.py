"""A run that goes on from a checkpoint is the run that was not stopped, bit for bit."""

import pytest

from vlm_crash.parallel.checkpoint import Stored

#: where a run goes on -> the step after which it was saved
PLACES = {
    "sharded step7": 7, "sharded step8": 8, "full step7": 7, "sharded step6": 6, "sharded validation6": 6,
    "sharded epoch6": 6, "workers": 7,
}  # fmt: skip


def clips_of(ranks, name, steps):
    """The clips of each step, over all processes."""
    return [sorted(clip for of_rank in ranks for clip in of_rank[name][0][step]["ids"]) for step in steps]


def test_the_whole_run(resumed):
    journal, _ = resumed[0]["sharded whole"]
    assert sorted(journal) == list(range(1, 18))
    assert len({line["drawn"] for line in journal.values()}) == 17
    assert len({line["rate"] for line in journal.values()}) > 10
    assert len({line["scale"] for line in journal.values()}) > 1, "the scale has grown on the way"
    epoch = clips_of(resumed, "sharded whole", (1, 2, 3))
    assert sorted(map(len, epoch)) == [2, 4, 4]
    assert len({clip for of_step in epoch for clip in of_step}) == 10


@pytest.mark.parametrize("name", PLACES)
def test_the_rest_is_bit_equal(resumed, name):
    """Loss, clips, learning rate, loss scale, random draws, weights, Adam's moments, on each process."""
    for of_rank in resumed:
        whole, _ = of_rank["sharded whole"]
        rest, _ = of_rank[name]
        assert sorted(rest) == list(range(PLACES[name] + 1, 18))
        for step, line in rest.items():
            assert line == whole[step]


def test_both_kinds_of_checkpoint_change_nothing(resumed):
    assert resumed[0]["full whole"][0] == resumed[0]["sharded whole"][0]


def test_what_was_seen_is_not_decoded_again(resumed):
    for of_rank in resumed:
        _, decoded = of_rank["sharded whole"]
        _, after = of_rank["sharded step7"]
        # Step 7 has taken two clips of this process in the third epoch of five.
        assert after == decoded[2 * 5 + 2 :]


@pytest.mark.parametrize("world", [1, 4])
def test_another_number_of_processes(launch, resumed, micro_model, prepared, resume_folder, world):
    elsewhere = launch("resume_elsewhere", world, micro_model, prepared, resume_folder, resume_folder)
    for name, tolerance in (("32-true", 1e-5), ("16-mixed", 1e-4), *([("plain", 1e-5)] if world == 1 else [])):
        before = "32-true" if name == "plain" else name
        whole, _ = resumed[0][before]
        rest, _ = elsewhere[0][name]
        assert sorted(rest) == list(range(8, 18))
        for step, line in rest.items():
            assert line["loss"] == pytest.approx(whole[step]["loss"], rel=tolerance), (name, step)
            assert line["rate"] == whole[step]["rate"]
        assert clips_of(elsewhere, name, rest) == clips_of(resumed, before, rest)


def test_weights_alone_are_not_resumed(resumed, resume_folder):
    assert "one of weights alone cannot be resumed" in resumed[0]["weights only"]
    stored = Stored(resume_folder / "weights1.ckpt")
    assert stored.is_sharded and all(name.startswith("model.") for name in stored.sizes)
