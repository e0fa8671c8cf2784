"""Every trap of the stock classes: what they do there, and what ours do."""

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.plugins.precision.fsdp import FSDPPrecision as StockPrecision
from lightning.pytorch.strategies import FSDPStrategy as StockStrategy
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from vlm_crash.parallel import FSDPPrecision, FSDPStrategy
from vlm_crash.parallel.precision import AgreedGradScaler


@pytest.fixture(scope="module")
def traps(launch):
    return launch("traps", 2)[0]


def test_stock_on_a_cpu(traps):
    """Refused by its exact type; a subclass is given no device."""
    for strategy in ("fsdp", StockStrategy()):
        with pytest.raises(ValueError, match="requires a GPU accelerator"):
            Trainer(accelerator="cpu", strategy=strategy, logger=False)
    assert "needs a non-CPU accelerator device" in traps["lightning"]
    assert traps["ours"]


def test_barriers_need_no_gpu(traps):
    assert traps["barriers"]["stock"], "Lightning's barrier takes the index of a GPU"
    assert traps["barriers"]["ours"] == ""


def test_weights_and_moments_are_kept_in_fp32(traps):
    assert traps["ours"]["kept"] == {torch.float32}


def test_frozen_weights_may_have_another_dtype(traps):
    error, moved = traps["mixed"]
    assert "uniform dtype" in error
    assert moved == {f"layers.{layer}.linear.bias" for layer in (0, 1)}


def test_buffers_stay_fp32(traps):
    assert traps["fsdp1"]["error"] > 0.01
    assert traps["ours"]["error"] == 0


def test_times_and_targets_stay_fp32(traps):
    assert traps["fsdp1"]["time"] == 1235
    assert traps["ours"]["time"] == pytest.approx(1234.57)


def test_a_layer_may_compute_in_fp32_among_others(traps):
    half, full = (torch.float16, torch.float16), (torch.float32, torch.float32)
    assert traps["ours"]["dtypes"] == [half, full, half]


def test_moments_of_adam_are_two(traps):
    first, second = traps["fsdp1 moments"]
    assert torch.equal(first, second), "torch's trap is mended: FSDP1's note in docs/training-changes.md is out of date"
    assert traps["our moments"]
    for mean, square in traps["our moments"].values():
        assert mean.abs().max() > 0
        # After one step from 0: exp_avg = 0.1 g, exp_avg_sq = 0.001 g^2.
        torch.testing.assert_close(square, 0.001 * (mean / 0.1) ** 2)


def test_weights_may_come_after_the_sharding(traps):
    """No process ever holds the whole model."""
    before, after = traps["late"]
    assert before and before.keys() == after.keys()
    for name, weight in before.items():
        assert torch.equal(weight, after[name])


def test_clipping_by_norm():
    with pytest.raises(MisconfigurationException, match="not supported"):
        StockPrecision("32-true").clip_grad_by_norm()
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, 4.0])
    FSDPPrecision("32-true").clip_grad_by_norm(torch.optim.SGD([weight]), 1.0)
    torch.testing.assert_close(weight.grad, torch.tensor([0.6, 0.8]))
    FSDPPrecision("32-true").clip_grad_by_value(torch.optim.SGD([weight]), 0.7)
    torch.testing.assert_close(weight.grad, torch.tensor([0.6, 0.7]))


def test_a_scaler_for_any_device():
    if not torch.cuda.is_available():
        assert not StockPrecision("16-mixed").scaler.is_enabled(), "scaling is silently off"
    ours = FSDPPrecision("16-mixed", init_scale=8.0, growth_interval=5)
    assert isinstance(ours.scaler, AgreedGradScaler) and ours.scaler.is_enabled()
    assert (ours.scaler.get_scale(), ours.scaler.get_growth_interval()) == (8.0, 5)
    assert FSDPPrecision("bf16-mixed").scaler is None and FSDPPrecision("32-true").scaler is None


def test_a_passed_scaler_acts():
    """One of ours as it is, one of torch's by its settings and state."""
    given = {"init_scale": 8.0, "growth_factor": 3.0, "backoff_factor": 0.25, "growth_interval": 5}
    with pytest.raises((ValueError, AttributeError)):
        StockPrecision("16-mixed", scaler=torch.amp.GradScaler("cpu", **given))
    own = AgreedGradScaler(**given)
    assert FSDPPrecision("16-mixed", scaler=own).scaler is own
    plain = torch.amp.GradScaler("cpu", **given)
    plain.load_state_dict({**plain.state_dict(), "scale": 16.0, "_growth_tracker": 4})
    taken = FSDPPrecision("16-mixed", scaler=plain).scaler
    assert isinstance(taken, AgreedGradScaler)
    assert taken.state_dict() == plain.state_dict()


class Lonely(torch.amp.GradScaler):
    """Somebody's own, which asks no other process."""


@pytest.mark.parametrize(
    ("precision", "settings", "message"),
    [
        ("32-true", {"scaler": AgreedGradScaler()}, "have no effect at precision='32-true'"),
        ("bf16-mixed", {"init_scale": 2.0}, "have no effect at precision='bf16-mixed'"),
        ("16-mixed", {"scaler": AgreedGradScaler(), "init_scale": 2.0}, "given beside a scaler"),
        ("16-mixed", {"scaler": Lonely("cpu")}, "make it a subclass of vlm_crash.parallel.AgreedGradScaler"),
        ("16-mixed", {"scaler": torch.amp.GradScaler("cpu", enabled=False)}, "is switched off"),
        ("16-mixed", {"init_scale": 0.0}, "init_scale above 0"),
        ("16-mixed", {"growth_interval": 0}, "growth_interval of at least 1"),
    ],
)
def test_a_scaler_that_could_not_act_is_refused(precision, settings, message):
    with pytest.raises(ValueError, match=message):
        FSDPPrecision(precision, **settings)


def test_a_plugin_whose_scaler_would_be_dropped_is_refused():
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    with pytest.raises((ValueError, TypeError), match="MixedPrecision"):
        Trainer(accelerator="cpu", devices=1, strategy=FSDPStrategy(), plugins=plugin, logger=False)


def test_no_autocast():
    assert StockPrecision("16-mixed").forward_context().device == "cuda"
    with FSDPPrecision("16-mixed").forward_context():
        assert not torch.is_autocast_enabled("cuda") and not torch.is_autocast_enabled("cpu")


def test_lightnings_own_fsdp2_refuses_fp16():
    with pytest.raises(ValueError, match="does not support"):
        Trainer(accelerator="cpu", strategy=ModelParallelStrategy(), precision="16-mixed", logger=False)


def test_the_trainers_plugin_becomes_ours():
    trainer = Trainer(accelerator="cpu", devices=1, strategy=FSDPStrategy(), precision="16-mixed", logger=False)
    assert type(trainer.precision_plugin) is FSDPPrecision
    assert trainer.precision_plugin.compute_dtype == torch.float16
