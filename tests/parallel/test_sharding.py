"""Words, meshes and units; what is not mapped is refused by its name."""

import pytest
import torch
from lightning import Trainer
from torch import nn
from torch.distributed.fsdp import ShardingStrategy

from tests.parallel.micro import Micro, write_micro_model
from vlm_crash.parallel import FSDPPrecision, FSDPStrategy
from vlm_crash.parallel.sharding import make_mesh, named_units, sharding_word


@pytest.mark.parametrize(
    ("given", "word"),
    [("zero3", "zero3"), ("FULL_SHARD", "zero3"), ("zero2", "zero2"), ("SHARD_GRAD_OP", "zero2"), ("none", "none"),
     ("NO_SHARD", "none"), ("hybrid", "hybrid"), ("HYBRID_SHARD", "hybrid"), (ShardingStrategy.NO_SHARD, "none")],
)  # fmt: skip
def test_words(given, word):
    assert sharding_word(given) == word
    assert FSDPStrategy(given).sharding_strategy.name in ("FULL_SHARD", "SHARD_GRAD_OP", "NO_SHARD", "HYBRID_SHARD")


@pytest.mark.parametrize("given", ["zero1", "_HYBRID_SHARD_ZERO2", ShardingStrategy._HYBRID_SHARD_ZERO2, ""])
def test_other_words_are_refused(given):
    with pytest.raises(ValueError, match=r"sharding_strategy=.*is not one of"):
        FSDPStrategy(given)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"auto_wrap_policy": {nn.Linear}}, "auto_wrap_policy is no setting.*shard_units"),
        ({"mixed_precision": None}, "mixed_precision is no setting.*--trainer.precision"),
        ({"activation_checkpointing_policy": None}, "--model.activation_checkpointing"),
        ({"forward_prefetch": True}, "forward_prefetch is no setting of this FSDPStrategy; leave it out"),
        ({"reduce_dtype": "float64"}, "reduce_dtype='float64' is not one of"),
        ({"state_dict_type": "local"}, "state_dict_type='local' is not one of"),
        ({"cpu_offload": "yes"}, "cpu_offload='yes' is not true or false"),
    ],
)
def test_other_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        FSDPStrategy(**settings)


@pytest.mark.parametrize(
    ("word", "nodes", "shape", "message"),
    [
        ("hybrid", 1, None, "one machine"),
        ("hybrid", 2, (3, 2), "is for 6 processes, and this run has 4"),
        ("zero3", 1, (2, 2), "has no meaning for sharding_strategy='zero3'"),
    ],
)
def test_meshes_that_do_not_fit(word, nodes, shape, message):
    with pytest.raises(ValueError, match=message):
        make_mesh(word, "cpu", 4, nodes, shape)


@pytest.mark.parametrize("precision", ["16-true", "bf16-true", "64-true"])
def test_other_precisions_are_refused(precision):
    with pytest.raises(ValueError, match="is not one of"):
        FSDPPrecision(precision)


def test_prediction_is_refused(micro_model):
    trainer = Trainer(accelerator="cpu", devices=1, strategy=FSDPStrategy(), logger=False)
    strategy = trainer.strategy
    trainer.state.fn = "predict"
    strategy.connect(Micro(micro_model))
    strategy.mesh = object()
    with pytest.raises(ValueError, match=r"does not predict; set --trainer.strategy auto"):
        strategy.setup(trainer)


def names(module):
    return sorted({name.split("model.", 1)[1] for name in named_units(module, module.shard_units)})


LAYERS = [
    "model.language_model.layers.0", "model.language_model.layers.1", "model.multi_modal_projector",
    "model.vision_tower.encoder.layer.0", "model.vision_tower.encoder.layer.1",
]  # fmt: skip


def test_units_of_the_model(micro_model, tmp_path):
    assert names(Micro(micro_model)) == ["lm_head", "model.language_model.embed_tokens", *LAYERS]
    write_micro_model(tmp_path / "tied", tied=True)
    assert names(Micro(tmp_path / "tied")) == LAYERS, "tied embedding and head stay with the root"


def test_inner_units_come_first():
    module = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)))
    assert list(named_units(module, {"Linear", "Sequential"})) == ["0.0", "0"]
    assert list(named_units(module, {"0.1"})) == ["0.1"]


def test_a_model_without_named_layers_is_refused():
    from vlm_crash.parallel.sharding import shard_module

    with pytest.raises(ValueError, match=r"no module of the names.*shard_units"):
        shard_module(nn.Linear(2, 2), ["Layer"], None, True, None, None)  # type: ignore[arg-type]


def test_a_plugin_of_ones_own_is_kept():
    plugin = FSDPPrecision("16-mixed", init_scale=2.0)
    trainer = Trainer(accelerator="cpu", devices=1, strategy=FSDPStrategy(), plugins=plugin, logger=False)
    assert trainer.precision_plugin is plugin
    assert plugin.policy(torch.float32).param_dtype == torch.float16
    assert plugin.policy(torch.float32, is_fp32=True).param_dtype == torch.float32
