"""Numbers that stop being finite on some of two processes, in fp16: named by all, and the run goes on or ends."""

import pytest

FC1 = "model.model.vision_tower.encoder.layer.1.mlp.fc1"
MLP = FC1.removesuffix(".fc1")


@pytest.fixture(scope="module")
def runs(launch, micro_model):
    return launch("sentinel", 2, micro_model)


@pytest.fixture
def first(runs):
    return runs[0]


def test_only_one_process_overflows(runs, first):
    """In the second batch of step 1; both skip it and go on."""
    (event,) = first["one process"]["events"]
    found = (event["step"], event["where"], event["module"], event["what"], event["processes"], event["batch"])
    patches = "model.model.vision_tower.embeddings.patch_embeddings.projection"
    assert found == (1, "forward", patches, "its output", [1], 1)
    assert len(event["clips"]) == 1 and event["num_batches"] == 2
    assert event["inputs"]["dtype"] == event["outputs"]["dtype"] == "float16"
    assert event["inputs"]["num_not_finite"] == 0 < event["outputs"]["num_not_finite"]
    assert 1e4 < event["inputs"]["largest"] <= 65504
    for found in runs:
        assert (found["one process"]["error"], found["one process"]["skipped"]) == ("", 1)
        assert found["one process"]["losses"][2] == pytest.approx(7, abs=0.5)


def test_all_overflow_until_the_run_is_stopped(runs, first):
    """Under activation checkpointing; after three steps, on both, with one message."""
    events = first["all"]["events"]
    assert [event["step"] for event in events] == [0, 1, 2]
    assert {(event["module"], event["where"], tuple(event["processes"])) for event in events} == {
        (FC1, "forward", (0, 1))
    }
    assert [event["in_a_row"] for event in events] == [1, 2, 3]
    assert [event["loss_scale"] for event in events] == [1024, 512, 256]
    message = first["all"]["error"]
    assert message.startswith("NotFinite stopped before the step was taken: 3 optimizer steps in a row were not finite")
    assert FC1 in message and f"compute it in fp32: --model.fp32_modules [{MLP}]" in message
    assert message.endswith("overflow.jsonl")
    assert runs[1]["all"]["error"] == "SystemExit 2"


def test_a_gradient_that_overflows(first):
    event = first["backward"]["events"][0]
    module = "model.model.language_model.layers.1.mlp.act_fn"
    assert (event["where"], event["module"], event["what"]) == ("backward", module, "the gradient of its input")
    assert event["inputs"]["num_not_finite"] == 0 and event["inputs"]["largest"] > 0
    assert event["outputs"]["largest"] is None


def test_a_gradient_that_is_infinite_only_in_the_sum(first):
    (event,) = first["sum"]["events"]
    assert (event["where"], event["module"], event["processes"]) == ("reduced", "model.lm_head", [1])
    assert event["what"] == "the gradient of its weight"
    assert len(event["clips"]) == 4, "those of all processes"


def test_the_search_leaves_no_trace(runs):
    """The first steps overflow in their gradients, and are computed again; what follows is the same to the bit."""
    for found in runs:
        watched, plain = found["watched"], found["not watched"]
        assert watched["losses"] == plain["losses"]
        assert watched["skipped"] == plain["skipped"] >= 4
        assert watched["hooks"] == plain["hooks"]
    assert len(runs[0]["watched"]["events"]) == runs[0]["watched"]["skipped"]
    assert {event["where"] for event in runs[0]["watched"]["events"]} == {"backward"}
    assert not runs[0]["not watched"]["events"]


@pytest.mark.parametrize("name", ["island", "island, checkpointed", "tower"])
def test_an_island_does_not_overflow(first, name):
    assert first[name]["skipped"] == 0 and not first[name]["events"]
    # What the planted weights compute is what they would without; fp16 rounds elsewhere.
    assert first[name]["losses"] == pytest.approx(first["no plant"]["losses"], abs=2e-2)


def test_what_all_processes_count_together(runs):
    """For the callbacks that write into TensorBoard."""
    for found in runs:
        assert found["together"]["rows"] == [[10, 1, 2, 0, 1], [20, 1, 2, 1, 1]]
        assert found["together"]["confusion"] == [1, 1]
