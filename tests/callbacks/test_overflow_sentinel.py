"""One process in fp32: what is not finite is named before the weights take it."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.parallel.micro import Micro, train
from tests.parallel.sentinel import endless_backward, num_hooks
from vlm_crash.callbacks import OverflowSentinel
from vlm_crash.callbacks.overflow_report import Report, Run, event
from vlm_crash.callbacks.overflow_sentinel import FILE, NotFinite, _tell
from vlm_crash.parallel.overflow_search import Finding, Size, measure

ATTENTION = "model.model.vision_tower.encoder.layer.1.attention"


def weight(name: str, factor: float = torch.nan) -> Any:
    def plant(module: Micro) -> None:
        with torch.no_grad():
            module.get_parameter(name).view(-1)[0] = factor

    return plant


def same_pixels(factor: float) -> Any:
    class Pixels(Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 3:
                batch.pixel_values_N3HW.view(-1)[0] = factor

    return Pixels()


def endless_attention(module: Micro) -> None:
    """Between the projections: no module of its own makes the number."""
    layer = module.get_submodule(ATTENTION)
    plain = layer.forward
    layer.forward = lambda hidden, *args, **options: plain(hidden * 1e38 * 1e38, *args, **options)


class BadLoss(Micro):
    """Finite gradients and a loss that is not."""

    def _loss(self, batch: Any) -> Any:
        loss, num_labels = super()._loss(batch)
        return loss + torch.inf, num_labels


def stopped(folder: Path, plant: Any = None, kind: type[Micro] = Micro, **options: Any) -> dict[str, Any]:
    """The one event of a run that stops at its first bad step, with the weights untouched."""
    accumulate, callbacks = options.pop("accumulate", 1), options.pop("callbacks", ())
    module = kind(folder, **options)
    if plant:
        plant(module)
    hooks = num_hooks(module)
    sentinel = OverflowSentinel()
    with pytest.raises(NotFinite, match="32-true has no loss scale that would skip a step") as error:
        train(folder, module=module, callbacks=(*callbacks, sentinel), steps=4, accumulate=accumulate)
    assert num_hooks(module) == hooks
    (line,) = Path(FILE).read_text().splitlines()
    found: dict[str, Any] = json.loads(line)
    assert found["message"] in str(error.value)
    assert len(module.model.lm_head.weight) and module.model.lm_head.weight.isfinite().all()
    return found


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_weight_that_is_not_a_number(micro_model):
    name = "model.model.language_model.layers.1.mlp.up_proj"
    found = stopped(micro_model, weight(f"{name}.weight"))
    assert (found["step"], found["where"], found["module"], found["what"]) == (0, "forward", name, "its output")
    assert found["bad_weights"] == [name] and found["has_finite_weights"] is False
    assert "go on from a checkpoint before they became so" in found["remedy"]
    assert len(found["clips"]) == 4 and found["processes"] == [0]
    assert found["inputs"]["num_not_finite"] == 0 < found["outputs"]["num_not_finite"]


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_gradient_alone(micro_model, checkpointed):
    found = stopped(micro_model, endless_backward, activation_checkpointing=checkpointed)
    name = "model.model.language_model.layers.1.mlp.act_fn"
    assert (found["where"], found["module"], found["what"]) == ("backward", name, "the gradient of its input")
    assert found["parent"] == name.removesuffix(".act_fn")


def test_a_gradient_of_a_weight_alone(micro_model):
    """What is passed on is finite."""

    def plant(module: Micro) -> None:
        parameter = module.model.model.multi_modal_projector.layer_norm.weight
        parameter.register_hook(lambda grad: grad * torch.inf)

    found = stopped(micro_model, plant)
    name = "model.model.multi_modal_projector.layer_norm"
    assert (found["where"], found["module"], found["what"]) == ("backward", name, "the gradient of its weight")


def test_arithmetic_between_modules(micro_model):
    found = stopped(micro_model, endless_attention)
    what = f"its own arithmetic, before {ATTENTION}.q_proj"
    assert (found["where"], found["module"], found["what"]) == ("forward", ATTENTION, what)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_pixels_and_which_batch_of_a_step(micro_model, value):
    found = stopped(micro_model, callbacks=(same_pixels(value),), accumulate=2)
    assert (found["step"], found["where"], found["batch"], found["num_batches"]) == (1, "batch", 1, 2)
    assert len(found["clips"]) == 2 and "look at the clips" in found["remedy"]


def test_a_loss_alone(micro_model):
    found = stopped(micro_model, kind=BadLoss)
    assert (found["where"], found["module"], found["what"]) == ("forward", "", "the loss")


def test_a_finite_run_is_left_alone(micro_model):
    """Bit by bit, without a file, and with no hooks between steps."""
    seen = []

    class Hooks(Callback):
        def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
            seen.append(num_hooks(pl_module))

    plain, module, _ = train(micro_model, steps=4, accumulate=2)
    watched, _, _ = train(micro_model, steps=4, accumulate=2, callbacks=(Hooks(), OverflowSentinel()))
    assert watched.losses == plain.losses and watched.norms == plain.norms
    assert set(seen) == {num_hooks(module)}
    assert not Path(FILE).exists()


def test_a_number_below_one_is_refused():
    with pytest.raises(ValueError, match="overflow_sentinel=0 is below 1"):
        OverflowSentinel(0)


def an_event(step: int = 0) -> dict[str, Any]:
    run = Run(step, 0, "16-mixed", 1024.0, 1, 1)
    finding = Finding("forward", "a.b", "its output", "a", Size(2.0, 0, "float16"), Size(None, 3, "float16"), True, 0)
    return event(run, [Report(0, None, ("x.mp4",)), Report(1, finding, ("y" * 5000 + ".mp4",))])


def test_lines_outlive_a_kill(tmp_path):
    """A process that writes one event after the other is killed: every line is whole."""
    trainer = Trainer(logger=False, accelerator="cpu", default_root_dir=tmp_path, enable_checkpointing=False)
    child = os.fork()
    if child == 0:
        step = 0
        while True:
            _tell(trainer, an_event(step))
            step += 1
    path = tmp_path / FILE
    end = time.monotonic() + 300
    while (not path.exists() or path.stat().st_size < 300_000) and time.monotonic() < end:
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) > 10 and [line["step"] for line in lines] == list(range(len(lines)))
    assert path.read_text().endswith("\n")


def test_tensorboard(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="", version="tensorboard")
    trainer = Trainer(logger=logger, accelerator="cpu", default_root_dir=tmp_path, enable_checkpointing=False)
    _tell(trainer, an_event(step=7))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (shown,) = events.Tensors("overflow/text_summary")
    text = shown.tensor_proto.string_val[0].decode()
    assert shown.step == 7
    assert "step 7: not finite in the forward pass: a.b, its output" in text
    assert "| outputs | no finite number and 3 that are not finite, float16 |" in text
    assert "--model.fp32_modules [a]" in text


def test_details_are_of_the_first_process_that_found_something():
    found = an_event()
    assert (found["process"], found["processes"], found["module"]) == (1, [1], "a.b")
    assert found["clips"] == ["y" * 5000 + ".mp4"]


def test_sizes():
    size = measure((torch.tensor([1.0, -3.0, torch.inf, torch.nan]), {"a": torch.tensor([2])}))
    assert size == Size(3.0, 2, "float32")
    assert measure({"ids": torch.tensor([1])}) is None
