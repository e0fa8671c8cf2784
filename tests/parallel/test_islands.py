"""Modules that compute in fp32 among others in half precision; under FSDPStrategy: test_sentinel.py."""

import pytest
import torch
from lightning import Trainer

from tests.parallel.micro import Micro, train
from tests.parallel.sentinel import large_weight
from vlm_crash.parallel.islands import compute_in_fp32

MLP = "model.model.vision_tower.encoder.layer.1.mlp"


def seen_dtypes(module: Micro, *names: str) -> dict[str, set[tuple[torch.dtype, torch.dtype]]]:
    """Of what goes into modules and comes out of them, once they run."""
    found: dict[str, set[tuple[torch.dtype, torch.dtype]]] = {name: set() for name in names}
    for name in names:
        module.get_submodule(name).register_forward_hook(
            lambda _, args, output, name=name: found[name].add((args[0].dtype, output.dtype))
        )
    return found


@pytest.mark.parametrize("checkpointed", [False, True])
def test_under_lightnings_autocast(micro_model, checkpointed):
    """The layer beside it computes in half precision; so does this one without the setting."""
    module = Micro(micro_model, fp32_modules=[MLP], activation_checkpointing=checkpointed)
    seen = seen_dtypes(module, f"{MLP}.fc1", f"{MLP}.fc2", f"{MLP.replace('layer.1', 'layer.0')}.fc2")
    record, _, _ = train(micro_model, module=module, precision="bf16-mixed", steps=2)
    inside, outside = (torch.float32, torch.float32), (torch.bfloat16, torch.bfloat16)
    assert list(seen.values()) == [{inside}, {inside}, {outside}]
    plain = train(micro_model, precision="bf16-mixed", steps=2, activation_checkpointing=checkpointed)[0]
    assert record.losses != plain.losses
    assert record.losses == pytest.approx(plain.losses, abs=2e-2)


def test_an_overflow_of_fp16_is_gone(micro_model):
    module = Micro(micro_model)
    large_weight(module)
    mlp = module.get_submodule(MLP)
    tensor = torch.randn(2, 17, 32)
    want = mlp(tensor)
    with torch.autocast("cpu", torch.float16):
        assert not mlp(tensor).isfinite().all()
        compute_in_fp32(module, [MLP])
        torch.testing.assert_close(mlp(tensor), want)
        assert module.model.lm_head(tensor).dtype == torch.float16


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (f"{MLP}x", f"has no module of that name or class; nearest: '{MLP}'"),
        ("Qwen2DecoderLayr", "nearest: 'Qwen2DecoderLayer'"),
        ("?", "its classes: "),
        ("language_model.layers", "no module of that name"),
        ("act_fn", "has no weights"),
    ],
)
def test_names_that_make_no_island(micro_model, name, message):
    with pytest.raises(ValueError, match="fp32_modules has") as error:
        Micro(micro_model, fp32_modules=[MLP, name])
    assert message in str(error.value)
    assert repr(name) in str(error.value)


def test_without_effect_in_fp32(micro_model):
    module = Micro(micro_model, fp32_modules=["lm_head"])
    with pytest.raises(ValueError, match=r"no effect in precision 32-true; leave --model\.fp32_modules out"):
        train(micro_model, module=module, steps=1)


@pytest.mark.gpu
def test_fp16_on_a_gpu(micro_model, tmp_path):
    """Lightning's own 16-mixed on one card: an island trains where the same model overflows."""
    skipped = {}
    for names in ([], [MLP]):
        module = Micro(micro_model, fp32_modules=names, lr=1e-9)
        large_weight(module)
        _, _, trainer = train(micro_model, module=module, precision="16-mixed", steps=3, accelerator="gpu")
        assert isinstance(trainer, Trainer)
        skipped[bool(names)] = trainer.precision_plugin.scaler.get_scale() < 2.0**16  # type: ignore[union-attr]
    assert skipped == {False: True, True: False}
