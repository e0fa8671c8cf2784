"""A run that goes on from a checkpoint is the run that was not stopped, bit for bit."""

import pytest

#: where a run goes on -> the step after which it was saved
PLACES = {
    "sharded step7": 7, "sharded step8": 8, "full step7": 7, "sharded step6": 6, "sharded validation6": 6,
    "sharded epoch6": 6, "workers": 7,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("resume")


@pytest.fixture(scope="module")
def two(launch, micro_model, prepared, folder):
    return launch("resume", 2, micro_model, prepared, folder)


def clips_of(ranks, name, steps):
    """The clips of each step, over all processes."""
    return [sorted(clip for of_rank in ranks for clip in of_rank[name][0][step]["ids"]) for step in steps]


def test_the_whole_run(two):
    journal, _ = two[0]["sharded whole"]
    assert sorted(journal) == list(range(1, 18))
    assert len({line["drawn"] for line in journal.values()}) == 17
    assert len({line["rate"] for line in journal.values()}) > 10
    assert len({line["scale"] for line in journal.values()}) > 1, "the scale has grown on the way"
    epoch = clips_of(two, "sharded whole", (1, 2, 3))
    assert sorted(map(len, epoch)) == [2, 4, 4]
    assert len({clip for of_step in epoch for clip in of_step}) == 10


@pytest.mark.parametrize("name", PLACES)
def test_the_rest_is_bit_equal(two, name):
    """Loss, clips, learning rate, loss scale, random draws, weights, Adam's moments, on each process."""
    for of_rank in two:
        whole, _ = of_rank["sharded whole"]
        rest, _ = of_rank[name]
        assert sorted(rest) == list(range(PLACES[name] + 1, 18))
        for step, line in rest.items():
            assert line == whole[step]


def test_both_kinds_of_checkpoint_change_nothing(two):
    assert two[0]["full whole"][0] == two[0]["sharded whole"][0]


def test_what_was_seen_is_not_decoded_again(two):
    for of_rank in two:
        _, decoded = of_rank["sharded whole"]
        _, after = of_rank["sharded step7"]
        # Step 7 has taken two clips of this process in the third epoch of five.
        assert after == decoded[2 * 5 + 2 :]


@pytest.mark.parametrize("world", [1, 4])
def test_another_number_of_processes(launch, two, micro_model, prepared, folder, world):
    elsewhere = launch("resume_elsewhere", world, micro_model, prepared, folder, folder)
    for name, tolerance in (("32-true", 1e-5), ("16-mixed", 1e-4), *([("plain", 1e-5)] if world == 1 else [])):
        before = "32-true" if name == "plain" else name
        whole, _ = two[0][before]
        rest, _ = elsewhere[0][name]
        assert sorted(rest) == list(range(8, 18))
        for step, line in rest.items():
            assert line["loss"] == pytest.approx(whole[step]["loss"], rel=tolerance), (name, step)
            assert line["rate"] == whole[step]["rate"]
        assert clips_of(elsewhere, name, rest) == clips_of(two, before, rest)
