"""The system: it learns, its towers obey, its schedule is what the options say."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import Trainer

from vlm_crash.data.collate import Batch, prompts_of
from vlm_crash.data.datamodule import CrashDataModule
from vlm_crash.lightning_module import CrashVLM
from vlm_crash.models.internvl import tower_of
from vlm_crash.schema.records import Annotation
from vlm_crash.schema.response import render

RATES = {"lr_vision": 1e-3, "lr_projector": 2e-3, "lr_language": 3e-3}


def make(path: Path, **options: Any) -> CrashVLM:
    torch.manual_seed(0)
    return CrashVLM(path, **{"embedder": None, "max_new_tokens": 8, **options})


@pytest.fixture(scope="module")
def batch(tiny_model: Path, prepared: Path) -> Batch:
    """Two training clips with two frames each."""
    data = CrashDataModule(folder=prepared, num_workers=0, num_frames=2, batch_size=2)
    data.connect(make(tiny_model).inputs)
    data.setup("fit")
    return next(iter(data.train_dataloader()))


def optimizers(module: CrashVLM, steps: int) -> Any:
    module.trainer = SimpleNamespace(estimated_stepping_batches=steps)  # type: ignore[assignment]
    return module.configure_optimizers()


def train(module: CrashVLM, batch: Batch, steps: int) -> list[float]:
    found = optimizers(module, steps)
    losses = []
    for _ in range(steps):
        loss_sum, count = module._loss(batch)
        (loss_sum / count).backward()
        found["optimizer"].step()
        found["optimizer"].zero_grad()
        found["lr_scheduler"]["scheduler"].step()
        losses.append(float(loss_sum / count))
    return losses


def test_two_clips_can_be_learnt(tiny_model, batch):
    losses = train(make(tiny_model, **RATES, warmup_ratio=0.1), batch, steps=15)
    assert losses[-1] < 0.7 * losses[0]
    assert losses[0] == pytest.approx(math.log(1600), rel=0.1)  # a random model spreads over its vocabulary


def test_gradients_are_gone_before_the_next_forward_pass(tiny_model, prepared, monkeypatch):
    """Lightning drops them after it; in the middle of an accumulated step they stay."""
    module = make(tiny_model)
    data = CrashDataModule(folder=prepared, num_workers=0, num_frames=1, batching="packed", batch_size=2)
    data.connect(module.inputs)
    held = []
    plain = CrashVLM._loss

    def watched(self: CrashVLM, batch: Batch) -> Any:
        held.append(any(parameter.grad is not None for parameter in self.parameters()))
        return plain(self, batch)

    monkeypatch.setattr(CrashVLM, "_loss", watched)
    trainer = Trainer(
        accelerator="cpu", max_steps=2, accumulate_grad_batches=2, limit_val_batches=0, logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    assert held == [False, True, False, True]
    assert trainer.optimizers[0].param_groups[0]["fused"]


@pytest.mark.parametrize("freeze", [["vision"], ["projector"], ["vision", "language"]])
def test_frozen_towers_stay(tiny_model, batch, freeze):
    module = make(tiny_model, **RATES, freeze=freeze, warmup_ratio=0.0)
    before = {name: parameter.detach().clone() for name, parameter in module.model.named_parameters()}
    train(module, batch, steps=1)
    moved = {tower_of(n) for n, parameter in module.model.named_parameters() if not torch.equal(before[n], parameter)}
    assert moved == {"vision", "projector", "language"} - set(freeze)


def test_groups_rates_and_decay(tiny_model):
    module = make(tiny_model, **RATES, weight_decay=0.1)
    groups = optimizers(module, 10)["optimizer"].param_groups
    assert {group["name"]: (group["initial_lr"], group["weight_decay"]) for group in groups} == {
        "vision": (1e-3, 0.1), "vision_vectors": (1e-3, 0.0),
        "projector": (2e-3, 0.1), "projector_vectors": (2e-3, 0.0),
        "language": (3e-3, 0.1), "language_vectors": (3e-3, 0.0),
    }  # fmt: skip
    count = sum(parameter.numel() for group in groups for parameter in group["params"])
    assert count == sum(parameter.numel() for parameter in module.model.parameters())
    for group in groups:
        assert all((parameter.ndim >= 2) == (not group["name"].endswith("_vectors")) for parameter in group["params"])


def test_warm_up_then_cosine(tiny_model):
    factor = optimizers(make(tiny_model, warmup_ratio=0.2), 10)["lr_scheduler"]["scheduler"].lr_lambdas[0]
    assert [factor(0), factor(1)] == [0.5, 1.0]
    assert [factor(step) for step in range(2, 11)] == pytest.approx(
        [0.5 * (1 + math.cos(math.pi * step / 8)) for step in range(9)]
    )
    plain = optimizers(make(tiny_model, warmup_ratio=0.0), 10)["lr_scheduler"]["scheduler"].lr_lambdas[0]
    assert plain(0) == 1.0


def calls(module: torch.nn.Module, of: str, run: Any) -> int:
    """How often a submodule's forward runs (transformers checkpoints inside a layer: its own hooks run once)."""
    count = 0

    def hook(*_: Any) -> None:
        nonlocal count
        count += 1

    handle = module.get_submodule(of).register_forward_pre_hook(hook)
    run()
    handle.remove()
    return count


@pytest.mark.parametrize(
    "part", ["model.vision_tower.encoder.layer.0.attention", "model.language_model.layers.0.self_attn"]
)
def test_activation_checkpointing_computes_again(tiny_model, batch, part):
    losses, counts, grads = [], [], []
    for on in (False, True):
        module = make(tiny_model, activation_checkpointing=on)

        def step(module: CrashVLM = module) -> None:
            loss = module._loss(batch)[0]
            loss.backward()
            losses.append(float(loss))

        counts.append(calls(module.model, part, step))
        grads.append(module.model.get_input_embeddings().weight.grad)
    assert counts == [1, 2]
    assert losses[0] == pytest.approx(losses[1])
    torch.testing.assert_close(grads[0], grads[1])


def test_vision_chunk_acts(tiny_model, batch):
    """Passes through the tower where nothing is learnt; in training one, whose attentions are cut."""
    for chunk, passes in ((None, 1), (1, 4), (3, 2)):
        module = make(tiny_model, vision_chunk=chunk).eval()
        assert calls(module.model, "model.vision_tower", lambda module=module: module._loss(batch)) == passes
        assert calls(module.train().model, "model.vision_tower", lambda module=module: module._loss(batch)) == 1


@pytest.mark.parametrize(("most", "answered"), [(0, []), (1, [1, 0]), (3, [2, 1]), (9, [2, 2])])
def test_number_of_validation_answers(tiny_model, batch, most, answered):
    module = make(tiny_model, num_validation_answers=most).eval()
    module.on_validation_epoch_start()
    with torch.no_grad():
        counts = [len(module.validation_step(batch, number)["predictions"]) for number in range(2)]
    assert counts == (answered or [0, 0])


@pytest.mark.parametrize("most", [0, 1, 3, 4])
def test_validation_answers_are_counted_over_all_processes(tiny_model, batch, monkeypatch, most):
    """Two processes with two batches of two clips each."""
    module = make(tiny_model, num_validation_answers=most).eval()
    monkeypatch.setattr(module, "answer", lambda asked: [SimpleNamespace(response="")] * len(asked.samples))
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    counts = []
    for rank in range(2):
        module._trainer = SimpleNamespace(global_rank=rank, world_size=2)  # type: ignore[assignment]
        module.on_validation_epoch_start()
        with torch.no_grad():
            counts.append(sum(len(module.validation_step(batch, number)["predictions"]) for number in range(2)))
    assert counts == [(most + 1) // 2, most // 2]


def test_all_towers_frozen_is_refused_in_training(tiny_model):
    module = make(tiny_model, freeze=["vision", "projector", "language"])
    with pytest.raises(ValueError, match="leaves nothing to train"):
        module.setup("fit")


@pytest.mark.parametrize("stage", ["fit", "validate", "test"])
def test_answers_are_scored_by_the_terms_of_the_dataset(tiny_model, prepared, batch, monkeypatch, stage):
    """ "a ... car" is the dataset's term "Car" in validation, as it is in `evaluate`."""
    module = make(tiny_model).eval()
    data = CrashDataModule(folder=prepared, num_frames=2)
    data.connect(module.inputs)
    data.setup("fit")
    sample = next(sample for sample in data.samples["train"] if sample.event == "crash")
    values = sample.annotation.values
    free = {name: f"a certain {values[name]}" for name in ("Crash_vehicle_type", "Crash_with")}
    text = render(module.schema, Annotation.of(module.schema, "crash", {**values, **free}))
    monkeypatch.setattr(module, "answer", lambda _: [SimpleNamespace(response=text)] * 2)
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    module.trainer = SimpleNamespace(datamodule=data, strategy=strategy)  # type: ignore[assignment]
    for setup, score in ((False, 0.0), (True, 1.0)):
        if setup:
            module.setup(stage)
        module.field_match.reset()
        module._score(replace(batch, samples=[sample] * 2))
        scores = module.field_match.compute()
        assert [float(scores[f"crash/{name}"]) for name in free] == [score, score]


def test_an_answer(tiny_model, batch):
    module = make(tiny_model, max_new_tokens=5).eval()
    module.provenance = "a run"
    prompts = prompts_of(batch, module.conversation.end_token_id)
    with torch.no_grad():
        predictions = module.answer(prompts)
    assert [prediction.video for prediction in predictions] == [sample.video for sample in batch.samples]
    for prediction, sample in zip(predictions, batch.samples, strict=True):
        assert (prediction.status, prediction.source_event, prediction.provenance) == ("ok", sample.event, "a run")
        assert prediction.event_probability is not None and 0 <= prediction.event_probability <= 1
    assert bool(prompts.attention_mask_BS[:, -1].all())


def test_open_fields_are_choices_among_the_terms_of_training(tiny_model, batch):
    module = make(tiny_model, max_new_tokens=2).eval()
    prompts = prompts_of(batch, module.conversation.end_token_id)
    module.fitted_terms = {"Crash_with": ["Car", "Van"], "Weather": ["Hail"], "Avoid_reason": ["x"], "Gone": ["y"]}
    slots = {slot.field.name: slot.terms for event in module.answering.form.slots.values() for slot in event}
    assert slots["Crash_with"] == ("Car", "Van")
    assert slots["Weather"] == module.schema.field("Weather").vocabulary  # closed: the schema's own
    assert slots["Avoid_reason"] == slots["Crash_vehicle_type"] == ()
    with torch.no_grad():
        assert all(prediction.status == "ok" for prediction in module.answer(prompts))


@pytest.mark.parametrize("decoding", ["best_term", "free"])
def test_non_finite_logits_are_a_failed_line_that_names_the_module(tiny_model, batch, decoding):
    module = make(tiny_model, decoding=decoding).eval()
    with torch.no_grad():
        module.model.get_parameter("model.multi_modal_projector.linear_1.weight").fill_(float("nan"))
        prompts = prompts_of(batch, module.conversation.end_token_id)
        (first, _) = module.answer(prompts)
        windows = module.event_probabilities(prompts)
    assert (first.status, first.fields, first.field_probabilities) == ("failed", {}, {})
    assert first.error == (
        "the model gave logits that are not finite: first in model.model.multi_modal_projector.linear_1, its output; "
        "its weights are not finite"
    )
    assert first.event_probability is None and first.response == ""
    assert windows == [first.error] * 2


@pytest.mark.parametrize(
    ("device", "stage", "dtype"),
    [("cuda", "predict", torch.float16), ("cpu", "predict", torch.float32), ("cuda", "fit", torch.float32)],
)
def test_weights_are_halved_where_a_gpu_only_predicts(tiny_model, device, stage, dtype):
    module = make(tiny_model, num_validation_answers=0)
    strategy = SimpleNamespace(root_device=torch.device(device))
    module.trainer = SimpleNamespace(strategy=strategy, datamodule=None)  # type: ignore[assignment]
    module.setup(stage)
    assert {parameter.dtype for parameter in module.parameters()} == {dtype}
    # RoPE's frequencies, rounded, turn the tokens of a long prompt too far.
    assert module.model.model.language_model.rotary_emb.inv_freq.dtype == torch.float32


@pytest.mark.gpu
def test_half_weights_on_a_gpu(tiny_model, batch):
    module = make(tiny_model).eval().cuda()
    prompts = prompts_of(batch.to("cuda"), module.conversation.end_token_id)
    with torch.no_grad():
        full = module.answer(prompts)
        module.model.half()
        half = module.answer(prompts)
    for left, right in zip(full, half, strict=True):
        assert right.status == "ok"
        assert right.event_probability == pytest.approx(left.event_probability, abs=0.02)
