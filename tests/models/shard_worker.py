"""One of several processes: a model whose parameters are sharded reads its rows; run by test_sharded_loading.py."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard

from vlm_crash.models.checkpoints import fill, meta_model
from vlm_crash.models.folder import is_original, read_config
from vlm_crash.models.internvl import load_model


def _last_dimension(parameter: torch.nn.Parameter) -> Shard:
    """fully_shard splits another dimension than the first only evenly."""
    return Shard(0 if parameter.shape[-1] % dist.get_world_size() else parameter.ndim - 1)


def check(folder: Path, columns: bool) -> None:
    """Every slice equals the whole model's, and so does what the model computes."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    model = meta_model(read_config(folder))
    place = _last_dimension if columns else None
    for layer in (*model.model.vision_tower.encoder.layer, *model.model.language_model.layers):
        fully_shard(layer, mesh=mesh, shard_placement_fn=place)
    fully_shard(model, mesh=mesh)
    fill(model, folder, is_original(folder))
    whole = load_model(folder)
    held = 0
    for name, parameter in model.named_parameters():
        assert isinstance(parameter, DTensor), name
        assert torch.equal(parameter.full_tensor(), whole.get_parameter(name)), name
        held += parameter.to_local().numel()
    number = sum(parameter.numel() for parameter in whole.parameters())
    assert held < 0.6 * number, (held, number)
    torch.manual_seed(0)
    ids, pixels = torch.randint(3, 300, (1, 12)), torch.randn(1, 3, 56, 56)
    ids[0, 2:6] = model.config.image_token_id
    with torch.no_grad():
        want = whole(input_ids=ids, pixel_values=pixels).logits
        torch.testing.assert_close(model(input_ids=ids, pixel_values=pixels).logits, want, atol=1e-5, rtol=0)


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for argument in sys.argv[1:]:
        check(Path(argument), columns=False)
    check(Path(sys.argv[1]), columns=True)
    dist.destroy_process_group()
