"""What runs: collectives by kind of sharding, attention kernels in forward, backward and recomputation."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import CheckpointError

from tests.parallel.micro import Micro, MicroItems
from vlm_crash.data.collate import Collator
from vlm_crash.models.attention import set_attention

MATH, FLASH = "aten::_scaled_dot_product_attention_math", "aten::_scaled_dot_product_flash_attention_for_cpu"
LAYERS = 4  # two of each tower


@pytest.fixture(scope="module")
def counts(launch, micro_model):
    return launch("kernels", 2, micro_model)[0]


@pytest.fixture(autouse=True)
def _back_to_all():
    yield
    set_attention("auto")


def collectives(counts):
    gathers = sum(count for name, count in counts.items() if name.startswith("c10d::_allgather_base"))
    return gathers, sum(count for name, count in counts.items() if name.startswith("c10d::_reduce_scatter_base"))


def test_zero3_gathers_twice_and_zero2_once(counts):
    """Units: 2 + 2 layers, projector, embedding, head, and the root with the rest."""
    assert collectives(counts["zero2"]) == (8, 8)
    gathers, scatters = collectives(counts["zero3"])
    assert scatters == 8
    assert 14 <= gathers <= 16


def test_math_alone_in_forward_and_recomputation(counts):
    assert counts["zero3"].get(MATH) == LAYERS
    assert counts["math checkpointed"].get(MATH) == 2 * LAYERS
    assert counts["language checkpointed"].get(MATH) == LAYERS + 2, "one tower alone"
    for name in ("zero3", "math checkpointed", "language checkpointed", "math in chunks"):
        assert FLASH not in counts[name] and f"{FLASH}_backward" not in counts[name]
        # The backward pass of math is that of its parts, a softmax among them.
        assert counts[name]["aten::_softmax_backward_data"] >= LAYERS


def test_auto_takes_another_kernel(counts):
    assert counts["auto checkpointed"].get(FLASH) == 2 * LAYERS
    assert counts["auto checkpointed"].get(f"{FLASH}_backward") == LAYERS


def test_frames_in_groups(counts):
    """4 frames of 2 clips one by one in 2 layers, forward and again in backward; the language model's 2 layers once."""
    assert counts["math in chunks"].get(MATH) == 2 * 4 * 2 + 2


def step(module, batch):
    loss, _ = module._loss(batch)
    loss.backward()


def test_a_context_around_the_forward_pass_is_not_enough(micro_model):
    """Why the choice is process-wide: recomputation happens after the context has ended."""
    module = Micro(micro_model, attention="auto", activation_checkpointing=True)
    items = MicroItems(module.model.config.image_token_id)
    batch = Collator(0)([items[0], items[1]])
    with pytest.raises(CheckpointError, match=r"different metadata|different number"):
        with sdpa_kernel(SDPBackend.MATH):
            loss, _ = module._loss(batch)
        loss.backward()
    set_attention("math")
    step(module, batch)


def test_groups_of_frames_change_no_gradient(micro_model):
    grads = []
    for chunk in (None, 1, 3):
        module = Micro(micro_model, attention="math", vision_chunk=chunk)
        items = MicroItems(module.model.config.image_token_id)
        step(module, Collator(0)([items[0], items[1]]))
        grads.append([parameter.grad for parameter in module.parameters()])
    for other in grads[1:]:
        torch.testing.assert_close(other, grads[0], rtol=1e-5, atol=1e-6)


def test_groups_of_frames_bound_the_matrices_that_live(micro_model):
    """Elements of [tokens, tokens] that the forward pass keeps for the backward pass."""
    sizes = {}
    for chunk in (None, 1):
        module = Micro(micro_model, attention="math", vision_chunk=chunk)
        items = MicroItems(module.model.config.image_token_id)
        kept = 0

        def pack(tensor):
            nonlocal kept
            kept += tensor.numel() * (tensor.shape[-2:] == (17, 17))
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            module._loss(Collator(0)([items[0], items[1]]))
        sizes[chunk] = kept
    assert sizes[None] > 0 and sizes[1] == 0
