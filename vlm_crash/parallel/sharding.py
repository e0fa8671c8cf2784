"""What is spread over which processes.

Enters: a word for the kind of sharding, a module, names of its layers. Leaves: a mesh of processes, and the module with
`fully_shard` applied layer by layer. Invariant: a setting that is not mapped is refused by its name.
"""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, OffloadPolicy, ShardingStrategy, fully_shard

log = logging.getLogger(__name__)

#: our word -> Lightning's (and FSDP1's) name.
SHARDING = {"zero3": "FULL_SHARD", "zero2": "SHARD_GRAD_OP", "none": "NO_SHARD", "hybrid": "HYBRID_SHARD"}
REPLICATE, SHARD = "replicate", "shard"


def sharding_word(given: str | ShardingStrategy) -> str:
    """Our word for a kind of sharding, given by ours or by Lightning's name.

    >>> sharding_word("FULL_SHARD"), sharding_word("zero2"), sharding_word(ShardingStrategy.NO_SHARD)
    ('zero3', 'zero2', 'none')

    Raises:
        ValueError: another one.
    """
    name = given.name if isinstance(given, ShardingStrategy) else given
    words = {**{word: word for word in SHARDING}, **{long: word for word, long in SHARDING.items()}}
    if name not in words:
        raise ValueError(
            f"sharding_strategy={name!r} is not one of {sorted(words)}; "
            "set --trainer.strategy.init_args.sharding_strategy to one of them"
        )
    return words[name]


def make_mesh(
    word: str, device_type: str, world_size: int, num_nodes: int, shape: tuple[int, int] | None = None
) -> DeviceMesh:
    """The processes in rows that hold the same and columns that share.

    Args:
        word: zero3, zero2, none or hybrid.
        device_type: cpu or cuda.
        world_size: number of processes.
        num_nodes: number of machines.
        shape: (copies, processes that share one) of hybrid; None: a copy for each machine.

    Raises:
        ValueError: a shape that does not fit.
    """
    if word == "hybrid":
        if shape is None and num_nodes == 1:
            raise ValueError(
                "sharding_strategy='hybrid' keeps a copy on each machine, and this run has one machine; set "
                "--trainer.strategy.init_args.sharding_strategy zero3, or device_mesh to [copies, processes a copy]"
            )
        copies, sharers = shape or (num_nodes, world_size // num_nodes)
    elif shape is not None:
        raise ValueError(
            f"device_mesh={tuple(shape)} has no meaning for sharding_strategy={word!r}; leave it out, or set "
            "--trainer.strategy.init_args.sharding_strategy hybrid"
        )
    elif word == "none":
        copies, sharers = world_size, 1
    else:
        return init_device_mesh(device_type, (world_size,), mesh_dim_names=(SHARD,))
    if copies * sharers != world_size:
        raise ValueError(
            f"device_mesh=({copies}, {sharers}) is for {copies * sharers} processes, and this run has {world_size}; "
            "set --trainer.strategy.init_args.device_mesh so that the product fits"
        )
    return init_device_mesh(device_type, (copies, sharers), mesh_dim_names=(REPLICATE, SHARD))


def named_units(module: nn.Module, names: Collection[str]) -> dict[str, nn.Module]:
    """Modules of these names, inner ones first.

    Args:
        module: where to look; it is never a unit itself.
        names: names of classes, last parts of module names, or whole module names.

    A module that shares a parameter with the outside (tied embeddings) is left out: its parameters must stay with the
    outer unit, which all users of them share.
    """
    owners = Counter(id(parameter) for _, parameter in module.named_parameters(remove_duplicate=False))
    units = {}
    for name, child in reversed(list(module.named_modules())):
        if not name or not {name, name.rsplit(".", 1)[-1], type(child).__name__} & set(names):
            continue
        inside = Counter(id(parameter) for _, parameter in child.named_parameters(remove_duplicate=False))
        if inside and all(owners[key] == count for key, count in inside.items()):
            units[name] = child
    return units


def shard_module(
    root: nn.Module,
    unit_names: Collection[str],
    mesh: DeviceMesh,
    reshard_after_forward: bool,
    offload_policy: OffloadPolicy,
    policy: Callable[[bool], MixedPrecisionPolicy],
    fp32_names: Collection[str] = (),
) -> Mapping[str, nn.Module]:
    """Spread a module's parameters over the mesh, in place.

    Args:
        root: gets the parameters that are in no unit.
        unit_names: what is gathered together (see `named_units`).
        mesh: the processes.
        reshard_after_forward: give the gathered weights back after a layer's forward pass (zero3), or after backward.
        offload_policy: where the shards lie between uses.
        policy: dtypes of a unit, by whether it is to compute in fp32.
        fp32_names: units of their own that compute in fp32 (see `named_units`).

    Returns:
        the units.

    Raises:
        ValueError: there is nothing of these names.
    """
    units = named_units(root, {*unit_names, *fp32_names})
    islands = named_units(root, fp32_names)
    if not units:
        raise ValueError(
            f"the model has no module of the names {sorted(unit_names)}: all weights would be gathered at once; "
            "name the classes of its layers in the LightningModule's shard_units"
        )
    for name, unit in units.items():
        fully_shard(
            unit,
            mesh=mesh,
            reshard_after_forward=reshard_after_forward,
            mp_policy=_policy_of(name, islands, policy),
            offload_policy=offload_policy,
        )
    # Targets and times may be among a step's inputs: the root casts none of them.
    outer = policy(False)
    fully_shard(
        root,
        mesh=mesh,
        reshard_after_forward=reshard_after_forward,
        mp_policy=MixedPrecisionPolicy(outer.param_dtype, outer.reduce_dtype, cast_forward_inputs=False),
        offload_policy=offload_policy,
    )
    log.info("sharded over %s: %s", describe(mesh), counted(units.values()))
    return units


def _policy_of(
    name: str, islands: Collection[str], policy: Callable[[bool], MixedPrecisionPolicy]
) -> MixedPrecisionPolicy:
    """A unit inside an island computes in fp32, too, and what it gives stays in fp32 until it leaves the island."""
    if any(name.startswith(f"{island}.") for island in islands):
        return replace(policy(True), output_dtype=None)
    return policy(name in islands)


def describe(mesh: DeviceMesh) -> str:
    """The mesh in words."""
    sizes = dict(zip(mesh.mesh_dim_names or (), mesh.shape, strict=True))
    copies = sizes.get(REPLICATE, 1)
    return f"{sizes[SHARD]} processes" + (f", {copies} copies" if copies > 1 else "")


def counted(modules: Iterable[nn.Module]) -> str:
    """Classes of modules with their numbers (the names before fully_shard, which makes subclasses)."""
    found = Counter(type(module).__name__.removeprefix("FSDP") for module in modules)
    return ", ".join(f"{count} x {name}" for name, count in sorted(found.items()))
