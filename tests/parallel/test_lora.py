"""Adapters on several processes: the numbers of one, and checkpoints that one process and `export` read."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.parallel.conftest import finish, start
from tests.parallel.lora_worker import STEPS, module_of
from tests.parallel.micro import Micro, Record, train
from vlm_crash.callbacks.model_folder import WholeCheckpoints
from vlm_crash.models.convert import export_trained
from vlm_crash.models.internvl import load_model
from vlm_crash.parallel.checkpoint import Stored


@pytest.fixture(scope="module")
def out(micro_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes leave."""
    folder = tmp_path_factory.mktemp("lora")
    processes = start(2, micro_model, folder, module="tests.parallel.lora_worker")
    for process, said in zip(processes, finish(processes), strict=True):
        assert process.returncode == 0, said[-4000:]
    return folder


@pytest.fixture(scope="module")
def found(out: Path) -> Any:
    return torch.load(out / "0.pt")


@pytest.fixture(scope="module")
def one(micro_model: Path) -> tuple[Record, Micro]:
    """The same run on one process."""
    record, module, _ = train(micro_model, module=module_of(micro_model), steps=STEPS)
    return record, module


@pytest.mark.parametrize(("name", "tolerance"), [("sharded", 1e-5), ("full", 1e-5), ("fp16", 5e-4)])
def test_the_numbers_are_those_of_one_process(one, found, name, tolerance):
    record, _ = one
    assert found[name]["losses"] == pytest.approx(record.losses, rel=tolerance)
    assert found[name]["norms"] == pytest.approx(record.norms, rel=10 * tolerance)


def trained(module: Micro) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in module.named_parameters() if value.requires_grad}


@pytest.mark.parametrize("name", ["sharded", "full"])
def test_a_checkpoint_holds_the_adapters_and_becomes_a_folder(one, out, micro_model, tmp_path, name):
    _, module = one
    exported = load_model(
        export_trained(partial(Stored, out / f"{name}.ckpt"), micro_model, tmp_path / "out")
    ).state_dict()
    base = load_model(micro_model).state_dict()
    state = trained(module)
    key = "model.language_model.layers.1.mlp.down_proj"
    a, b = (state[f"model.{key}.lora_{letter}.default.weight"] for letter in "AB")
    torch.testing.assert_close(exported[f"{key}.weight"], base[f"{key}.weight"] + 2 * b @ a, rtol=0, atol=1e-5)
    assert float((b @ a).abs().max()) > 1e-3
    stored = Stored(out / f"{name}.ckpt")
    assert sorted(stored.model_names) == sorted(state), "nothing of the base is in it"
    moments = {name.split(".state.")[1].rsplit(".", 1)[0] for name in stored.sizes if name.startswith("optimizer_0")}
    assert len(moments) == len(state)


@pytest.mark.parametrize("name", ["sharded", "full"])
def test_one_process_goes_on(one, out, micro_model, name):
    _, module = one
    plugins = [WholeCheckpoints()]
    fresh = module_of(micro_model)
    record, fresh, _ = train(
        micro_model, module=fresh, steps=STEPS, plugins=plugins, ckpt_path=out / f"{name}.ckpt"
    )  # fmt: skip
    assert record.losses == [], "all steps were taken already"
    for key, value in trained(module).items():
        torch.testing.assert_close(trained(fresh)[key], value, rtol=1e-4, atol=1e-5)


def test_a_half_base_is_refused(found):
    assert "lora.base_dtype=float16 cannot be under FSDPStrategy" in found["refused"]
