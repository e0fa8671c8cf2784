"""A run that goes on from a checkpoint is the run that was not stopped, bit for bit; killed at any moment, too."""

import json
import random
import time

import pytest

from tests.parallel.conftest import finish, start
from tests.parallel.travels import SOON, STEPS
from vlm_crash.parallel.checkpoint import Stored

#: where a run goes on -> the step after which it was saved
PLACES = {
    "sharded step7": 7, "sharded step8": 8, "full step7": 7, "sharded step6": 6, "sharded validation6": 6,
    "sharded epoch6": 6, "epoch9 of epoch6": 9, "workers": 7,
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
        assert sorted(rest) == list(range(PLACES[name] + 1, (STEPS if name == "sharded step7" else SOON) + 1))
        for step, line in rest.items():
            assert line == whole[step]


def test_no_validation_is_left_out(resumed):
    """A checkpoint of an epoch's last step is written before the validation that comes after it."""
    losses = resumed[0]["sharded losses"]
    assert list(losses["whole"]) == [3, 6, 9, 12, 15]
    for place, of_run in losses.items():
        first = {"whole": 3, "step6": 6}.get(place, 9)
        last = SOON if place not in ("whole", "step7") else STEPS
        of_run.pop(SOON, None)  # it is told to stop, and validates
        assert of_run == {step: loss for step, loss in losses["whole"].items() if first <= step <= last}, place


def test_both_kinds_of_checkpoint_change_nothing(resumed):
    whole, _ = resumed[0]["sharded whole"]
    assert resumed[0]["full whole"][0] == {step: whole[step] for step in range(1, SOON + 1)}


def test_what_was_seen_is_not_decoded_again(resumed):
    for of_rank in resumed:
        _, decoded = of_rank["sharded whole"]
        _, after = of_rank["sharded step7"]
        # Step 7 has taken two clips of this process in the third epoch of five.
        assert after == decoded[2 * 5 + 2 :]


@pytest.fixture(scope="module")
def elsewhere(launch, resumed, micro_model, prepared, resume_folder):
    """By the number of processes."""
    return {world: launch("resume_elsewhere", world, micro_model, prepared, resume_folder) for world in (1, 4)}


@pytest.mark.parametrize(("precision", "tolerance"), [("32-true", 1e-5), ("16-mixed", 1e-4), ("plain", 1e-5)])
def test_two_processes_become_one(elsewhere, resumed, precision, tolerance):
    """Also one without FSDP (plain)."""
    same_course(elsewhere[1], precision, resumed, "32-true" if precision == "plain" else precision, tolerance)


@pytest.mark.parametrize(("precision", "tolerance"), [("32-true", 1e-5), ("16-mixed", 1e-4)])
def test_one_process_becomes_four(elsewhere, precision, tolerance):
    same_course(elsewhere[4], precision, elsewhere[1], f"whole {precision}", tolerance)


def same_course(ranks, name, before, whole_name, tolerance):
    """Ten steps after step 7: losses, learning rates, loss scales, clips."""
    whole, rest = before[0][whole_name][0], ranks[0][name][0]
    assert sorted(rest) == list(range(8, 18))
    for step, line in rest.items():
        assert line["loss"] == pytest.approx(whole[step]["loss"], rel=tolerance), step
        assert (line["rate"], line["scale"]) == (whole[step]["rate"], whole[step]["scale"])
    assert clips_of(ranks, name, rest) == clips_of(before, whole_name, rest)


@pytest.fixture(scope="module")
def kept(launch, micro_model, prepared, tmp_path_factory):
    """A folder, and what was found."""
    folder = tmp_path_factory.mktemp("kept")
    return folder, launch("keep", 2, micro_model, prepared, folder)[0]


@pytest.mark.parametrize("kind", ["sharded", "full"])
def test_the_best_and_the_last_are_kept(kept, kind):
    """As configs/titan.yaml has it: the newest state, and the weights of the best validation."""
    folder, found = kept[0] / kind, kept[1][kind]
    assert list(found["losses"]) == [3, 6, 9]
    best = min(found["losses"], key=found["losses"].get)
    assert found["best"] == f"best-epoch={best // 3 - 1}-step={best}.ckpt"
    assert found["names"] == sorted([found["best"], "last.ckpt"]), "nothing else, and nothing half written"
    last, weights = Stored(folder / "last.ckpt"), Stored(folder / found["best"])
    assert last.is_sharded == weights.is_sharded == (kind == "sharded")
    assert last.rest["global_step"] == 10
    assert any(name.startswith("optimizer_0.") for name in last.sizes)
    assert all(name.startswith("model.") for name in weights.sizes)
    assert set(weights.model_names) == set(last.model_names)


def test_weights_alone_are_not_resumed(kept):
    assert "one of weights alone cannot be resumed" in kept[1]["weights only"]


def test_one_process_is_told_to_stop(launch, micro_model, prepared, tmp_path):
    """The last one alone, by either signal: all save the same step, the one that was being taken."""
    for found in launch("told", 2, micro_model, prepared, tmp_path):
        assert found == {"SIGTERM": 4, "SIGUSR1": 4}


def test_a_validation_stops_at_once_and_is_what_the_run_begins_with_that_goes_on(
    launch, micro_model, prepared, tmp_path
):
    for found in launch("told_in_validation", 2, micro_model, prepared, tmp_path):
        whole, stopped, rest = found["whole"], found["stopped"], found["on"]
        assert stopped["journal"] is None and stopped["step"] == 6
        assert stopped["batches"] == {3: 2, 6: 1}, "one batch of two, by both processes"
        assert rest["batches"] == {6: 2, 9: 2} and whole["batches"] == {3: 2, 6: 2, 9: 2}, "then the whole of it"
        assert stopped["losses"] == {3: whole["losses"][3]}
        assert rest["losses"] == {step: whole["losses"][step] for step in (6, 9)}
        assert rest["journal"] == {step: whole["journal"][step] for step in (7, 8, 9, 10)}
        best = min(whole["losses"], key=whole["losses"].get)
        assert whole["best"] == [f"best-epoch={best // 3 - 1}-step={best}.ckpt"]
        assert whole["best"] == (stopped["best"] if best == 3 else rest["best"])


def test_an_error_on_one_process_ends_the_others(micro_model, prepared, tmp_path):
    """At once: it does not wait for parts of a checkpoint that nobody sends (for half an hour, if it did)."""
    processes = start(2, "fail", tmp_path, micro_model, prepared, tmp_path)
    said = finish(processes)
    assert all(process.returncode for process in processes), said
    assert "RuntimeError: stumbled" in said[1]
    names = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    assert names == ["best-epoch=0-step=3.ckpt"], "what was there before, and nothing half written"


def lines(path):
    """Whole ones: another may be under way."""
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def kill_after(processes, journal, num_lines):
    """Once so many steps are written, and a moment more."""
    patient_until = time.monotonic() + 900
    while len(lines(journal)) < num_lines:
        assert all(process.poll() is None for process in processes), finish(processes)[0][-4000:]
        assert time.monotonic() < patient_until
        time.sleep(0.02)
    time.sleep(random.random() / 5)
    for process in processes:
        process.kill()
    finish(processes)


def test_killed_twice(resumed, micro_model, prepared, tmp_path):
    """`kill -9` in the middle of a run that saves after every step; it goes on each time."""
    out = tmp_path / "run"
    arguments = ("keep_going", tmp_path, micro_model, prepared, out)
    for num_lines in (4, 9):
        kill_after(start(2, *arguments), out / "journal0", num_lines)
        stored = Stored(out / "last.ckpt")
        assert stored.is_sharded
        last = lines(out / "journal0")[-1]["step"]
        assert stored.rest["global_step"] in (last - 1, last), "of the step that ended last, or that before it"
    processes = start(2, *arguments)
    said = finish(processes)
    assert all(process.returncode == 0 for process in processes), said[0][-4000:]
    for rank, of_rank in enumerate(resumed):
        whole, _ = of_rank["sharded whole"]
        written = lines(out / f"journal{rank}")
        assert {line["step"] for line in written} == set(whole)
        assert len(written) < 17 + 2 * 3, "each time at most the step that was being saved is done again"
        for line in written:
            assert line == whole[line["step"]]
