"""Many processes compute what one does: losses, norms, skipped steps."""

import pytest
import torch

from tests.parallel.micro import FEW_STEPS, NUM_STEPS, steps_of, train

FP32 = ["zero3", "zero2", "none", "hybrid", "offload", "later", "later, offload", "packed"]
FP32 += ["checkpointed", "one tower checkpointed"]
FP16 = ["fp16 zero3", "fp16 zero2", "fp16 reduced in fp16", "fp16 checkpointed"]
FP16 += ["fp16 none", "fp16 hybrid", "fp16 offload", "fp16 packed"]
FP16_TOLERANCE = 5e-4
RATES = {"vision": 1e-3, "projector": 2e-3, "language": 3e-3}


@pytest.fixture(scope="module")
def one_process(micro_model):
    """Losses and norms of one process in fp32 without FSDP: (all towers, vision frozen)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    runs = {"all": vars(train(micro_model)[0]), "frozen": vars(train(micro_model, freeze=["vision"])[0])}
    torch.set_num_threads(threads)
    return runs


@pytest.fixture(scope="module")
def two(launch, micro_model):
    return launch("numbers", 2, micro_model, *FP32, *FP16, "accumulated", "frozen")


@pytest.fixture(scope="module")
def four(launch, micro_model):
    return launch("numbers", 4, micro_model, "zero3", "zero2", "hybrid", "fp16 zero3")


def differences(run, reference, steps):
    """The largest of these steps, which are all of the run's."""
    assert len(run["losses"]) == len(run["norms"]) == steps <= len(reference["losses"]) == NUM_STEPS == 20
    losses = max(abs(x - y) / y for x, y in zip(run["losses"], reference["losses"][:steps], strict=True))
    norms = max(abs(x - y) / y for x, y in zip(run["norms"], reference["norms"][:steps], strict=True))
    return losses, norms


def test_the_reference_learns(one_process):
    losses, norms = one_process["all"]["losses"], one_process["all"]["norms"]
    assert losses[-1] < losses[0] - 0.3
    assert min(norms) > 0.5, "every step is clipped, or clipping is not tested"


@pytest.mark.parametrize("name", [*FP32, "accumulated"])
def test_two_processes_in_fp32(two, one_process, name):
    for of_rank in two:
        losses, norms = differences(of_rank[name], one_process["all"], steps_of(name, 2))
        assert losses < 1e-5
        assert norms < 1e-4


@pytest.mark.parametrize("name", ["zero3", "zero2", "hybrid"])
def test_four_processes_in_fp32(four, one_process, name):
    losses, norms = differences(four[3][name], one_process["all"], steps_of(name, 4))
    assert losses < 1e-5
    assert norms < 1e-4


def test_a_frozen_tower(two, one_process):
    assert differences(two[0]["frozen"], one_process["frozen"], FEW_STEPS)[0] < 1e-5
    assert differences(two[0]["frozen"], one_process["all"], FEW_STEPS)[0] > 1e-4


@pytest.mark.parametrize("name", FP16)
def test_fp16(two, four, one_process, name):
    for of_rank in (*two, *([four[0]] if name in four[0] else [])):
        losses, _ = differences(of_rank[name], one_process["all"], steps_of(name, 4 if of_rank is four[0] else 2))
        assert 1e-6 < losses < FP16_TOLERANCE


def test_the_dtype_of_sums_acts(two):
    """Gradients summed in fp16 are not those summed in fp32; the same run twice is the same to the last bit."""
    assert two[0]["fp16 reduced in fp16"]["losses"][1:] != two[0]["fp16 zero3"]["losses"][1:FEW_STEPS]
    assert two[0]["fp16 zero3"]["losses"] == two[1]["fp16 zero3"]["losses"]


def test_meshes(launch):
    """Two machines of two processes: hybrid keeps a copy on each."""
    for found in launch("meshes", 4):
        assert found == {"zero3": ((4,), 4), "zero2": ((4,), 4), "none": ((4, 1), 1), "hybrid": ((2, 2), 2)}


def test_each_tower_has_its_learning_rate(launch, micro_model):
    """AdamW's first step is as long as the rate; what is frozen stays to the last bit."""
    found = launch("towers", 2, micro_model)[0]
    assert list(found) == ["", "vision", "projector", "vision language"]
    for frozen, farthest in found.items():
        rates = {tower: 0.0 if tower in frozen.split() else rate for tower, rate in RATES.items()}
        assert farthest == pytest.approx(rates, rel=1e-2), frozen


@pytest.fixture(scope="module")
def overflow(launch, micro_model):
    return launch("overflow", 2, micro_model)


def test_a_planted_overflow_is_skipped_by_all(overflow):
    for found in overflow:
        scale = found["scales"][1]
        assert found["scales"] == [scale, scale, scale / 2, scale / 2, scale / 2]
        assert found["moved"] == [True, True, False, True, True]
        assert found["rates"] == pytest.approx([0.3 * 0.98**step for step in (0, 1, 2, 2, 3)])
        assert (found["skipped"], found["steps"]) == (1, 5)
        assert scale == 2.0**10, "the scaler that was passed"


@pytest.mark.parametrize("kind", ["zero2", "none", "hybrid", "offload"])
def test_a_planted_overflow_is_skipped_under_other_kinds_of_sharding(overflow, kind):
    for found in overflow:
        assert found["kinds"][kind] == {
            "scales": [2.0**10, 2.0**9, 2.0**9, 2.0**9], "moved": [True, False, True, True], "skipped": 1,
        }  # fmt: skip


def test_the_scale_backs_off_until_it_fits(overflow):
    """A start that is far too high: as many steps are skipped as it takes, on both processes the same."""
    for found in overflow:
        high = found["high"]
        assert high == overflow[0]["high"]
        before = [2.0**28, *high["scales"][:-1]]
        halved = [after == scale / 2 for scale, after in zip(before, high["scales"], strict=True)]
        assert [not moved for moved in high["moved"]] == halved
        assert sum(halved) == high["skipped"] > 2
        assert not any(halved[-3:])


def test_rope_stays_fp32(overflow):
    assert overflow[0]["buffers"] == {torch.float32}


def test_a_scaler_that_does_not_ask_the_others_parts_them(overflow):
    first, second = (found["plain"] for found in overflow)
    assert first["moved"][2] and not second["moved"][2]
    assert first["scales"][2] == 2 * second["scales"][2]
