"""Adapters: they begin as nothing, they alone are trained, and merged they compute the same."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from peft import PeftModel
from torch import Tensor

from tests.models.original_folder import Shape, described, write_original
from tests.parallel.micro import Micro, MicroItems, train, write_micro_model
from vlm_crash.data.collate import Batch, Collator
from vlm_crash.models.convert import export_folder, export_trained
from vlm_crash.models.folder import HicoSettings, folder_settings, is_original, read_config
from vlm_crash.models.internvl import load_model, tower_of
from vlm_crash.models.lora import LORA, LoraSettings
from vlm_crash.models.lora_files import fingerprint
from vlm_crash.models.lora_layers import inject, trained_shapes
from vlm_crash.models.lora_record import make_record
from vlm_crash.parallel.checkpoint import Stored

BOTH = LoraSettings(towers=["vision", "language"], rank=4)
IDS = torch.randint(6, 300, (2, 9), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("micro")
    write_micro_model(folder)
    return folder


def batch_of(module: Micro) -> Batch:
    return Collator(0)([MicroItems(module.model.config.image_token_id).items[index] for index in range(3)])


def make(folder: Path, lora: LoraSettings | None, **options: Any) -> Micro:
    torch.manual_seed(0)
    return Micro(folder, lora=lora, **options)


def shaken(module: Any) -> Any:
    """With adapters as some training leaves them: B is not 0."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return module


def loss_of(module: Micro) -> Tensor:
    loss_sum, _ = module._loss(batch_of(module))
    return loss_sum


def test_untrained_adapters_change_nothing(micro):
    assert torch.equal(loss_of(make(micro, BOTH)), loss_of(make(micro, None)))


@pytest.mark.parametrize(
    ("lora", "towers", "num_layers"),
    [
        (BOTH, {"vision", "language", "projector"}, 2 * (4 + 2) + 2 * (4 + 3)),
        (LoraSettings(), {"language", "projector"}, 2 * (4 + 3)),
        (LoraSettings(projector=False, targets=["attention"]), {"language"}, 2 * 4),
        (LoraSettings(towers=["vision"], targets=["fc1", "q_proj"], projector=False), {"vision"}, 2 * 2),
    ],
    ids=["both", "usual", "attention", "by name"],
)
def test_what_is_trained_is_what_was_asked_for(micro, lora, towers, num_layers):
    module = make(micro, lora)
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    assert sum(".lora_A." in name for name in before) == num_layers
    _, module, _ = train(micro, module=module, steps=2)
    moved = {name for name, parameter in module.named_parameters() if not torch.equal(before[name], parameter)}
    assert {tower_of(name) for name in moved} == towers
    assert moved == {name for name in before if "lora_" in name or (lora.projector and "projector" in name)}
    assert set(module.state_dict()) == moved, "a checkpoint holds what is trained, and nothing else"


def test_gradients_come_through_recomputation(micro):
    """The language model's inputs need no gradient here, and its adapters get theirs all the same."""
    grads = []
    for options in ({}, {"activation_checkpointing": True, "vision_chunk": 1}):
        module = shaken(make(micro, replace(BOTH, towers=["language"], projector=False), **options))
        loss_of(module).backward()
        grads.append({name: parameter.grad for name, parameter in module.named_parameters() if parameter.requires_grad})
    assert len(grads[0]) == 2 * 2 * 7
    for name, grad in grads[0].items():
        assert float(grad.abs().max()) > 0, name
        torch.testing.assert_close(grads[1][name], grad)


def test_dropout_acts_in_training_alone(micro):
    module = shaken(make(micro, replace(BOTH, dropout=0.5)))
    assert not torch.equal(loss_of(module), loss_of(module))
    module.eval()
    assert torch.equal(loss_of(module), loss_of(module))


def half(scale: float = 2.0**10) -> MixedPrecision:
    """Lightning's own plugin of --trainer.precision 16-mixed, for a CPU."""
    return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))


def test_a_base_in_fp16_trains_as_one_in_fp32_under_autocast(micro, tmp_path):
    """Bit by bit where the folder is in fp16: autocast would round the same matrices for each use."""
    micro = export_folder(micro, tmp_path / "half", dtype="float16")
    found = {}
    for kind in ("auto", "float32"):
        module = make(micro, replace(BOTH, base_dtype=kind), activation_checkpointing=["language"])
        record, module, _ = train(micro, module=module, precision=None, plugins=half(), steps=6)
        found[kind] = record
        matrices = {p.dtype for n, p in module.named_parameters() if n.endswith("base_layer.weight")}
        assert matrices == {torch.float16 if kind == "auto" else torch.float32}
        assert {p.dtype for p in module.parameters() if p.requires_grad} == {torch.float32}
    plain, _, _ = train(micro, module=make(micro, BOTH), steps=6)
    assert (found["auto"].losses, found["auto"].norms) == (found["float32"].losses, found["float32"].norms)
    assert found["auto"].losses == pytest.approx(plain.losses, rel=5e-4)
    assert found["auto"].norms == pytest.approx(plain.norms, rel=5e-3)


def test_adapters_in_fp16_could_not_be_trained(micro):
    """Why adapters stay fp32 beside an fp16 base: the scaler refuses gradients of fp16."""

    class Careless(Micro):
        def setup(self, stage: str) -> None:
            super().setup(stage)
            self.model.half()

    torch.manual_seed(0)
    with pytest.raises(ValueError, match="Attempting to unscale FP16 gradients"):
        train(micro, module=Careless(micro, lora=BOTH), precision=None, plugins=half(), steps=1)


@pytest.mark.parametrize(
    ("precision", "kind", "message"),
    [("16-true", "auto", "adapters that are not fp32"), ("32-true", "float16", "cannot be at --trainer.precision 32")],
)
def test_dtypes_that_cannot_be(micro, precision, kind, message):
    with pytest.raises(ValueError, match=message):
        train(micro, module=make(micro, replace(BOTH, base_dtype=kind)), precision=precision, steps=1)


def test_a_base_is_held_as_it_is_stored_until_it_computes(tmp_path):
    write_original(tmp_path / "model", Shape(language="qwen2"))
    module = make(tmp_path / "model", LoraSettings())
    assert {p.dtype for p in module.parameters() if not p.requires_grad} == {torch.bfloat16}
    before = load_model(tmp_path / "model").state_dict()
    module.adapters.settle("32-true", is_sharded=False)
    state = dict(module.model.named_parameters())
    assert {p.dtype for p in state.values()} == {torch.float32}
    assert all(torch.equal(state[name], value) for name, value in before.items() if name in state)
    state["model.language_model.embed_tokens.weight"].data[0, 0] = 1e5
    with pytest.raises(ValueError, match=r"embed_tokens.weight has numbers above 65504.*base_dtype float32"):
        module.adapters.settle("16-mixed", is_sharded=False)


def write_checkpoint(path: Path, folder: Path, lora: LoraSettings = BOTH) -> Any:
    """A checkpoint of a model with trained adapters; the model, which computes with them."""
    torch.manual_seed(0)
    model = load_model(folder)
    inject(model, lora)
    shaken(model)
    state = {f"model.{name}": value for name, value in model.state_dict().items() if "lora_" in name}
    if lora.projector:
        state |= {f"model.{name}": value for name, value in model.state_dict().items() if "projector" in name}
    name = next(iter(state)).removeprefix("model.")
    record = make_record(lora, folder, fingerprint(folder), name)
    torch.save({"state_dict": state, LORA: record, "vlm_crash": {"prompt": "short"}}, path)
    return model.eval()


def export(checkpoint: Path, base: Path, out: Path, layout: str = "transformers", dtype: str = "as_stored") -> Path:
    return export_trained(partial(Stored, checkpoint), base, out, layout, dtype)


BASES = [Shape(dtype=torch.float32), Shape(language="qwen2", qk_norm=True, tied=True, dtype=torch.float32)]


@pytest.mark.parametrize("layout", ["transformers", "original"])
@pytest.mark.parametrize("shape", BASES, ids=described)
def test_merged_equals_unmerged(tmp_path, shape, layout):
    write_original(tmp_path / "base", shape)
    unmerged = write_checkpoint(tmp_path / "last.ckpt", tmp_path / "base")
    out = export(tmp_path / "last.ckpt", tmp_path / "base", tmp_path / "out", layout)
    assert is_original(out) == (layout == "original") and folder_settings(read_config(out)).prompt == "short"
    merged, base, state = load_model(out), load_model(tmp_path / "base").state_dict(), unmerged.state_dict()
    changed = set()
    for name, value in merged.state_dict().items():
        a, b = (state.get(f"{name.removesuffix('.weight')}.lora_{letter}.default.weight") for letter in "AB")
        want = base[name] if a is None or b is None else base[name] + 2 * (b @ a)  # alpha is 2 x rank
        torch.testing.assert_close(value, state[name] if "projector" in name else want, rtol=0, atol=1e-6)
        changed |= set() if torch.equal(value, base[name]) else {tower_of(name)}
    assert changed == {"vision", "projector", "language"}
    pixels = torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(merged(input_ids=IDS).logits, unmerged(input_ids=IDS).logits, rtol=1e-5, atol=1e-5)
        features = [model.get_image_features(pixels).pooler_output for model in (merged, unmerged)]
    torch.testing.assert_close(*features, rtol=1e-5, atol=1e-5)


def test_token_merging_and_the_bases_dtype_stay(tmp_path, parity, caplog):
    folder = parity / "checkpoints/qwen2_hico"
    unmerged = write_checkpoint(tmp_path / "last.ckpt", folder)
    export(tmp_path / "last.ckpt", folder, tmp_path / "out")
    assert folder_settings(read_config(tmp_path / "out")).hico == HicoSettings(4, 64, 4)
    assert read_config(tmp_path / "out").dtype == torch.bfloat16 and "are rounded to bfloat16" in caplog.text
    export(tmp_path / "last.ckpt", folder, tmp_path / "full", dtype="float32")
    with torch.no_grad():
        want = unmerged(input_ids=IDS).logits
        torch.testing.assert_close(load_model(tmp_path / "full")(input_ids=IDS).logits, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("lora", [BOTH, LoraSettings(projector=False, alpha=3.0)], ids=["projector", "language"])
def test_peft_loads_the_adapter(tmp_path, lora):
    write_original(tmp_path / "base", BASES[0])
    unmerged = write_checkpoint(tmp_path / "last.ckpt", tmp_path / "base", lora)
    export(tmp_path / "last.ckpt", tmp_path / "base", tmp_path / "adapter", layout="adapter")
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors"
    }  # fmt: skip
    peft = PeftModel.from_pretrained(load_model(tmp_path / "base"), tmp_path / "adapter")
    pixels = torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(peft(input_ids=IDS).logits, unmerged(input_ids=IDS).logits)
        mine, theirs = (model.get_image_features(pixels).pooler_output for model in (unmerged, peft.base_model.model))
    assert torch.equal(mine, theirs)
    assert not torch.equal(mine, load_model(tmp_path / "base").get_image_features(pixels).pooler_output) or (
        not lora.projector
    )


def test_training_goes_on_from_an_adapter(tmp_path):
    base = tmp_path / "base"
    write_original(base, BASES[0])
    before = write_checkpoint(tmp_path / "last.ckpt", base)
    adapter = export(tmp_path / "last.ckpt", base, tmp_path / "adapter", layout="adapter")
    module = make(base, replace(BOTH, adapter=adapter))
    assert all(torch.equal(value, before.state_dict()[name]) for name, value in module.model.state_dict().items())
    other = tmp_path / "other"
    write_original(other, replace(BASES[0], seed=1))
    for path, lora, message in (
        (base, replace(BOTH, rank=8), r"trained with lora.rank 4, not 8, lora.alpha 8.0, not 16"),
        (base, LoraSettings(rank=4), r"trained with lora.towers \['language', 'vision'\], not \['language'\]"),
        (other, BOTH, rf"trained beside the weights of {base} .*and {other} has others"),
        (base, replace(BOTH, adapter=base), "has no adapter_config.json and no adapter_model.safetensors"),
    ):
        with pytest.raises(ValueError, match=message):
            make(path, replace(lora, adapter=lora.adapter or adapter))


def test_the_fingerprint_is_that_of_the_numbers(tmp_path):
    tensors = write_original(tmp_path / "base", BASES[0])
    found = fingerprint(tmp_path / "base")
    assert fingerprint(export_folder(tmp_path / "base", tmp_path / "moved")) == found
    assert fingerprint(export_folder(tmp_path / "base", tmp_path / "narrow", dtype="float16")) != found
    write_original(tmp_path / "other", replace(BASES[0], seed=1))
    assert fingerprint(tmp_path / "other") != found
    assert len(tensors) > 10


def test_another_base_is_refused_in_export(tmp_path):
    for name, shape in (
        ("base", BASES[0]),
        ("other", replace(BASES[0], seed=1)),
        ("deep", replace(BASES[0], layers=3)),
    ):
        write_original(tmp_path / name, shape)
    write_checkpoint(tmp_path / "last.ckpt", tmp_path / "base")
    with pytest.raises(
        ValueError, match=rf"beside the weights of {tmp_path / 'base'} .*{tmp_path / 'other'} has others"
    ):
        export(tmp_path / "last.ckpt", tmp_path / "other", tmp_path / "out")
    with pytest.raises(ValueError, match=r"is a checkpoint of another model than .*14 tensors differ"):
        export(tmp_path / "last.ckpt", tmp_path / "deep", tmp_path / "out")
    torch.save({"state_dict": {f"model.{n}": v for n, v in load_model(tmp_path / "base").state_dict().items()}},
               tmp_path / "whole.ckpt")  # fmt: skip
    with pytest.raises(ValueError, match="holds whole weights, no adapters"):
        export(tmp_path / "whole.ckpt", tmp_path / "base", tmp_path / "out", layout="adapter")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "lora.rank=0 is below 1"),
        ({"alpha": 0.0}, "lora.alpha=0.0 is not above 0"),
        ({"alpha": float("nan")}, "lora.alpha=nan is not above 0"),
        ({"dropout": 1.0}, r"lora.dropout=1.0 is not in \[0, 1\)"),
        ({"dropout": -0.1}, r"lora.dropout=-0.1 is not in"),
        ({"towers": []}, r"lora.towers=\[\] must be some of \['vision', 'language'\]"),
        ({"towers": ["projector"]}, r"lora.towers=\['projector'\] must be some of"),
        ({"targets": ["attention", "w1"]}, r"lora.targets=\['w1'\] are no layers of \['language'\]"),
        ({"targets": []}, "names no layer of the language tower"),
        ({"targets": ["o_proj"], "towers": ["vision", "language"]}, "names no layer of the vision tower"),
        ({"base_dtype": "int8"}, "lora.base_dtype='int8' is not one of"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        LoraSettings(**settings)


@pytest.mark.parametrize(
    ("lora", "options", "message"),
    [
        (BOTH, {"freeze": ["vision"]}, r"\['vision'\] are in --model.freeze and in --model.lora.towers"),
        (LoraSettings(), {"freeze": ["projector"]}, "projector is in --model.freeze, and --model.lora.projector"),
        (LoraSettings(), {"init": "random"}, "leaves LoRA nothing to adapt"),
    ],
)
def test_contradictions(micro, lora, options, message):
    with pytest.raises(ValueError, match=message):
        make(micro, lora, **options)
    make(micro, LoraSettings(projector=False), freeze=["vision", "projector"])  # says what is so


def test_shapes_without_a_model(micro):
    module = make(micro, BOTH)
    want = {name.removeprefix("model."): tuple(value.shape) for name, value in module.state_dict().items()}
    assert trained_shapes(read_config(micro), BOTH) == want


@pytest.mark.gpu
def test_a_base_in_fp16_on_a_gpu(micro):
    """Lightning's own 16-mixed, with the memory that it takes: 2 bytes a frozen matrix, 16 a trained parameter."""
    half = {"precision": "16-mixed", "accelerator": "gpu"}
    record, module, trainer = train(micro, module=make(micro, BOTH), steps=6, **half)
    plain, _, _ = train(micro, module=make(micro, BOTH), steps=6)
    assert record.losses == pytest.approx(plain.losses, rel=5e-3)
    assert {p.dtype for n, p in module.named_parameters() if n.endswith("base_layer.weight")} == {torch.float16}
    assert trainer.strategy.root_device.type == "cuda"
