"""What only GPUs show: the numbers of the CPU, the kernels that ran, the memory, what NCCL takes no part in.

No clip is read. One process a GPU, two at most; each check starts its own processes.
"""

import pytest
import torch

from tests.parallel.micro import BASE, train
from tests.parallel.on_gpu import GPU_RUNS

pytestmark = pytest.mark.gpu

#: Largest difference of a loss in 20 steps from one CPU process in fp32.
FP32_TOLERANCE, FP16_TOLERANCE = 1e-4, 2e-3
LAYERS = 4
OP = "aten::_scaled_dot_product_{}"
MATH, EFFICIENT, FLASH, CUDNN = (
    OP.format(name) for name in ("attention_math", "efficient_attention", "flash_attention", "cudnn_attention")
)
#: Parts of the names of other kernels' operations, and of what they launch on the GPU.
OTHERS = ("flash", "efficient", "cudnn_attention", "fmha")


@pytest.fixture(scope="module")
def world():
    return min(2, torch.cuda.device_count())


@pytest.fixture(scope="module")
def reference(micro_model):
    """Losses and norms of one CPU process in fp32 without FSDP."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    record = train(micro_model)[0]
    torch.set_num_threads(threads)
    return record


@pytest.fixture(scope="module")
def run(launch, micro_model, world):
    """A run of on_gpu.py, once."""
    done = {}

    def found(name):
        if name not in done:
            done[name] = launch("gpu_run", world, micro_model, name)
        return done[name]

    return found


@pytest.mark.parametrize("name", GPU_RUNS)
def test_losses_are_those_of_one_cpu_in_fp32(run, reference, name):
    for of_rank in run(name):
        assert of_rank["backend"] == "nccl"
        tolerance = FP32_TOLERANCE if name == "fp32" else FP16_TOLERANCE
        assert of_rank["losses"] == pytest.approx(reference.losses, rel=tolerance)
        assert of_rank["norms"] == pytest.approx(reference.norms, rel=50 * tolerance)
        assert of_rank["skipped"] == 0


@pytest.mark.parametrize("name", ["math", "offload"])
def test_weights_moments_and_rope_are_fp32(run, name):
    found = run(name)[0]
    assert found["dtypes"] == found["buffers"] == {torch.float32}
    assert found["devices"] == {"cpu" if name == "offload" else "cuda"}


def ran(counts, kernel):
    """How often, forward and backward."""
    return counts.get(kernel, 0), counts.get(f"{kernel}_backward", 0)


def test_math_alone_in_forward_backward_and_recomputation(run):
    for name, times in (("math", 2 * LAYERS), ("math in chunks", None)):
        counts = run(name)[0]["counts"]
        assert counts[MATH] == times or (times is None and counts[MATH] > 2 * LAYERS)
        assert counts["aten::_softmax_backward_data"] >= LAYERS, "the backward pass of math is that of its parts"
        other = [
            key for key in counts if any(word in key.lower() for word in ("flash", "efficient", "cudnn_att", "fmha"))
        ]
        assert other == []


def test_efficient_alone(run):
    """Also with no mask, where transformers leaves keys unrepeated, which this kernel does not take."""
    assert ran(run("efficient")[0]["counts"], EFFICIENT) == (2 * LAYERS, LAYERS)
    for name in ("efficient", "efficient, no padding"):
        counts = run(name)[0]["counts"]
        assert counts[EFFICIENT] > 0
        assert not {MATH, FLASH, CUDNN} & set(counts)


def test_flash_and_efficient_where_a_mask_is_needed(run):
    """Padding in a batch needs a mask, in the language model's two layers; frames have none."""
    counts = run("flash")[0]["counts"]
    assert ran(counts, FLASH) == (4, 2)
    assert ran(counts, EFFICIENT) == (4, 2)
    counts = run("flash, no padding")[0]["counts"]
    assert ran(counts, FLASH)[0] == ran(counts, FLASH)[1] > 0
    assert not {MATH, EFFICIENT, CUDNN} & set(counts)


def test_auto_takes_a_quick_kernel(run):
    counts = run("auto")[0]["counts"]
    assert sum(counts.get(kernel, 0) for kernel in (MATH, EFFICIENT, FLASH, CUDNN)) >= 2 * LAYERS
    if torch.cuda.get_device_capability() >= (8, 0):
        assert {EFFICIENT, FLASH, CUDNN} & set(counts)


def test_overflows_are_skipped_and_the_scale_backs_off(launch, micro_model, world):
    for found in launch("gpu_overflow", world, micro_model):
        planted, high = found["planted"], found["high"]
        assert planted["scales"] == [1024, 1024, 512, 512, 512]
        assert planted["moved"] == [True, True, False, True, True]
        assert planted["skipped"] == 1
        before = [2.0**28, *high["scales"][:-1]]
        halved = [after == scale / 2 for scale, after in zip(before, high["scales"], strict=True)]
        assert [not moved for moved in high["moved"]] == halved
        assert high["skipped"] == sum(halved) > 2
        assert any(high["moved"]) and high["scales"][-1] < 2.0**24


def test_the_gather_goes_over_cpus(launch, micro_model, world):
    """While NCCL's is the main group; what comes is the shards put together."""
    found = launch("gpu_gather", world, micro_model)
    assert found[0]["groups"] == ("nccl", "gloo")
    assert not [name for name in found[0]["ran"] if "nccl" in name.lower()]
    for name, whole in found[0]["whole"].items():
        assert whole.device.type == "cpu"
        assert torch.equal(torch.cat([of_rank["local"][name] for of_rank in found]) if whole.ndim else whole, whole), (
            name
        )
    for moments in found[0]["moments"].values():
        assert moments["exp_avg"].device.type == "cpu"
        assert not torch.equal(moments["exp_avg"], moments["exp_avg_sq"])


@pytest.fixture(scope="module")
def resumed(launch, micro_model, world, tmp_path_factory):
    return launch("gpu_resume", world, micro_model, tmp_path_factory.mktemp("resume"))


@pytest.mark.parametrize("kind", ["sharded", "full", "offload"])
def test_the_rest_is_that_of_the_whole_run(resumed, kind):
    """Ten steps after step 7: random draws of the GPU, rates and scale to the bit; losses and weights to rounding."""
    for of_rank in resumed:
        whole, rest = of_rank[kind]["whole"], of_rank[kind]["rest"]
        assert len(whole["losses"]) == 17 and len(rest["losses"]) == 10
        assert rest["drawn"] == whole["drawn"][7:]
        assert rest["rates"] == whole["rates"][7:]
        assert rest["scale"] == whole["scale"]
        assert rest["losses"] == pytest.approx(whole["losses"][7:], rel=1e-5)
        for name, weight in rest["weights"].items():
            torch.testing.assert_close(weight, whole["weights"][name], rtol=1e-4, atol=1e-5)


def test_groups_of_frames_need_less_memory(launch, tmp_path):
    """16 frames of 257 tokens, 2 heads: each matrix of all frames is 8.5 MB in fp32, and each of 2 layers keeps one."""
    found = launch("gpu_memory", 1, tmp_path)[0]
    matrix = 16 * 2 * 257**2 * 4
    losses = [loss for loss, _ in found.values()]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)
    peaks = {chunk: peak for chunk, (_, peak) in found.items()}
    # Below these, other parts of the step are the peak, so smaller groups gain nothing more.
    assert peaks[None] - max(peaks[1], peaks[8]) > 1.5 * matrix


def test_fp16_answers_are_those_of_the_cpu(launch):
    """The model that ships with the package, and scenes that are drawn."""
    found = launch("gpu_predict", 1, BASE)[0]
    assert (found["cpu"]["dtype"], found["gpu"]["dtype"]) == (torch.float32, torch.float16)
    assert found["gpu"]["status"] == {"ok"}
    assert all(len(text) > 100 for text in found["cpu"]["texts"])
    assert found["gpu"]["texts"] == found["cpu"]["texts"]
    assert found["gpu"]["probabilities"] == pytest.approx(found["cpu"]["probabilities"], abs=0.02)
