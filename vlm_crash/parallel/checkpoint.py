"""Checkpoints of sharded runs: one file with everything, or a folder to which each process adds its shards.

Enters: a module, optimizers, whatever else goes on with a run. Leaves: files; a module and optimizers filled from files
that any number of processes wrote. Invariants: a checkpoint of a final name is complete; both kinds hold the same
tensors under the same names, so that each can be read by any number of processes.

Layout of a folder: torch.distributed.checkpoint's files with the tensors `model.<name>` and
`optimizer_<number>.state.<name>.<key>`, and meta.pt with the rest. A file is Lightning's own.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.optim import Optimizer

from vlm_crash.parallel.gathering import CPUGroup, fill
from vlm_crash.parallel.whole_files import part_of, put_in_place, standing, whole_file

META = "meta.pt"
OTHERS = "optimizer_rest"


def is_sharded(path: Path) -> bool:
    """Whether a checkpoint is a folder of shards."""
    return (path / META).is_file()


def names_of(module: nn.Module, optimizer: Optimizer) -> list[str]:
    """Names of an optimizer's parameters in its own order."""
    known = {id(parameter): name for name, parameter in module.named_parameters()}
    return [known[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def optimizer_tensors(module: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """The tensors of an optimizer's state, as `<name of the parameter>.<key>`."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {
        f"{name}.{key}": value
        for name, parameter in zip(names_of(module, optimizer), parameters, strict=True)
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def optimizer_rest(module: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """An optimizer's state without the tensors: options of its groups, names of their parameters, other values."""
    names = names_of(module, optimizer)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    values = {
        name: {key: value for key, value in optimizer.state.get(parameter, {}).items() if not isinstance(value, Tensor)}
        for name, parameter in zip(names, parameters, strict=True)
    }
    return {"groups": groups, "names": names, "values": values}


def numbered(rest: Mapping[str, Any], tensors: Mapping[str, Tensor], optimizer: Optimizer) -> dict[str, Any]:
    """An optimizer's state as torch's own state_dict has it: by the number of the parameter."""
    state: dict[int, dict[str, Any]] = {}
    for number, name in enumerate(rest["names"]):
        found = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
        if found or rest["values"][name]:
            state[number] = {**rest["values"][name], **found}
    return {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}


def save_file(content: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint of one file."""
    with whole_file(path) as part:
        torch.save(content, part)


def save_shards(
    tensors: Mapping[str, Tensor], rest: Mapping[str, Any], path: Path, group: CPUGroup, is_first: bool
) -> None:
    """Write a checkpoint folder; every process adds its own shards.

    Args:
        tensors: by name, plain or sharded.
        rest: everything else, equal on every process.
        path: the folder.
        group: the processes.
        is_first: whether this process does what is to be done once.
    """
    part = path.with_name(f".{path.name}.part")
    if is_first:
        part_of(path)
    group.barrier()
    dcp.save(dict(tensors), storage_writer=FileSystemWriter(part), process_group=group.group)
    if is_first:
        torch.save(dict(rest), part / META)
        put_in_place(part, path)
    group.barrier()


class Stored:
    """A checkpoint on disk, of either kind; tensors are read as they are asked for.

    Args:
        path: file or folder.
        group: processes that read together; None: this one reads alone.

    Raises:
        ValueError: there is none, or it is not complete.
    """

    def __init__(self, path: Path, group: CPUGroup | None = None) -> None:
        self.path = standing(path)
        self.group = group
        self.is_sharded = is_sharded(self.path)
        if self.is_sharded:
            self.rest: dict[str, Any] = torch.load(self.path / META, map_location="cpu", weights_only=True)
            self.sizes = {
                name: (stored.size, stored.properties.dtype)
                for name, stored in FileSystemReader(self.path).read_metadata().state_dict_metadata.items()
                if isinstance(stored, TensorStorageMetadata)
            }
        elif self.path.is_file():
            content: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True, mmap=True)
            self._whole = {f"model.{name}": value for name, value in content["state_dict"].items()}
            for number, state in enumerate(content.get("optimizer_states", ())):
                self._whole |= _named(number, state)
            self.rest = {key: value for key, value in content.items() if key != "state_dict"}
            self.sizes = {name: (value.shape, value.dtype) for name, value in self._whole.items()}
        else:
            what = "has no meta.pt: it was not written to its end" if self.path.is_dir() else "does not exist"
            raise ValueError(f"the checkpoint {path} {what}; give a .ckpt that fit wrote")

    @property
    def model_names(self) -> list[str]:
        """Names of the model's tensors."""
        return [name.removeprefix("model.") for name in self.sizes if name.startswith("model.")]

    def read(self, targets: Mapping[str, Tensor]) -> None:
        """Fill tensors of these names, plain or sharded; of a sharded one this process reads its rows only."""
        if self.is_sharded:
            alone = self.group is None
            dcp.load(
                dict(targets),
                storage_reader=FileSystemReader(self.path),
                process_group=None if self.group is None else self.group.group,
                no_dist=alone,
            )
        else:
            for name, target in targets.items():
                fill(target, self._whole[name])

    def read_model(self) -> Iterator[tuple[str, Tensor]]:
        """The model's whole tensors, one by one."""
        for name in self.model_names:
            size, dtype = self.sizes[f"model.{name}"]
            target = torch.empty(size, dtype=dtype)
            self.read({f"model.{name}": target})
            yield name, target


def _named(number: int, state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors of an optimizer's numbered state."""
    return {
        f"optimizer_{number}.state.{index}.{key}": value
        for index, values in state["state"].items()
        for key, value in values.items()
        if isinstance(value, Tensor)
    }


def load_model(stored: Stored, module: nn.Module, strict: bool = True) -> None:
    """Fill a module's tensors.

    Raises:
        ValueError: names or shapes differ.
    """
    state = module.state_dict()
    names = list(_first_names(module, state))
    given = set(stored.model_names)
    missing = [name for name in names if name not in given]
    unknown = sorted(given - set(state))
    shapes = [
        f"{name}: {tuple(stored.sizes[f'model.{name}'][0])} in the checkpoint, {tuple(state[name].shape)} in the model"
        for name in names
        if name in given and tuple(stored.sizes[f"model.{name}"][0]) != tuple(state[name].shape)
    ]
    found = {"missing": missing if strict else [], "unknown": unknown if strict else [], "of another shape": shapes}
    differences = [f"{len(kind)} tensors {word} (first: {kind[0]})" for word, kind in found.items() if kind]
    if differences:
        raise ValueError(
            f"{stored.path} is a checkpoint of another model: {', '.join(differences)}; "
            "set --model.path to the folder that the checkpoint was trained from"
        )
    stored.read({f"model.{name}": state[name] for name in names if name in given})


def model_tensors(module: nn.Module) -> dict[str, Tensor]:
    """A module's tensors, tied ones once."""
    state = module.state_dict()
    return {name: state[name] for name in _first_names(module, state)}


def _first_names(module: nn.Module, state: Mapping[str, Any]) -> Iterator[str]:
    """Names of a state without the second names of tied parameters."""
    all_names = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    second = all_names - {name for name, _ in module.named_parameters()}
    return (name for name in state if name not in second)


def load_optimizers(stored: Stored, module: nn.Module, optimizers: Sequence[Optimizer]) -> None:
    """Fill the state of optimizers.

    Raises:
        ValueError: the checkpoint has only weights, or other parameters were trained.
    """
    rests = stored.rest.get(OTHERS) or stored.rest.get("optimizer_states")
    if not rests or len(rests) != len(optimizers):
        raise ValueError(
            f"{stored.path} has the state of {len(rests or ())} optimizers, and this run has {len(optimizers)}; "
            "one of weights alone cannot be resumed: leave out --ckpt_path and set --model.path to an export of it"
        )
    for number, (optimizer, rest) in enumerate(zip(optimizers, rests, strict=True)):
        names = names_of(module, optimizer)
        groups = rest["groups"] if stored.is_sharded else rest["param_groups"]
        if stored.is_sharded and rest["names"] != names:
            other = sorted(set(rest["names"]) ^ set(names)) or names
            raise ValueError(
                f"{stored.path} trained other parameters than this run ({len(other)} differ, first: {other[0]}); "
                "set --model.freeze as it was"
            )
        sizes = [len(group["params"]) for group in optimizer.param_groups]
        if len(groups) != len(sizes) or (not stored.is_sharded and [len(group["params"]) for group in groups] != sizes):
            raise ValueError(
                f"{stored.path} has other groups of parameters than this run; set --model.freeze as it was"
            )
        for group, saved in zip(optimizer.param_groups, groups, strict=True):
            group.update({key: value for key, value in saved.items() if key != "params"})
        _load_state(stored, number, optimizer, names if stored.is_sharded else [str(i) for i in range(len(names))])
        if stored.is_sharded:
            _set_values(optimizer, [rest["values"][name] for name in names])
        else:
            others = [rest["state"].get(index, {}) for index in range(len(names))]
            _set_values(optimizer, [{k: v for k, v in other.items() if not isinstance(v, Tensor)} for other in others])


def _load_state(stored: Stored, number: int, optimizer: Optimizer, labels: Sequence[str]) -> None:
    """Make the tensors that an optimizer's state has on disk, and fill them."""
    targets: dict[str, Tensor] = {}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    prefix = f"optimizer_{number}.state."
    keys: dict[str, list[str]] = {}
    for full in stored.sizes:
        if full.startswith(prefix):
            label, key = full.removeprefix(prefix).rsplit(".", 1)
            keys.setdefault(label, []).append(key)
    for label, parameter in zip(labels, parameters, strict=True):
        optimizer.state[parameter] = {}
        for key in keys.get(label, ()):
            full = f"{prefix}{label}.{key}"
            size, dtype = stored.sizes[full]
            like = tuple(size) == tuple(parameter.shape)
            tensor = torch.empty_like(parameter, dtype=dtype) if like else torch.empty(size, dtype=dtype)
            optimizer.state[parameter][key] = targets[full] = tensor.detach()
    stored.read(targets)


def _set_values(optimizer: Optimizer, values: Sequence[Mapping[str, Any]]) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for parameter, found in zip(parameters, values, strict=True):
        if found:
            optimizer.state[parameter].update(found)
        elif not optimizer.state[parameter]:
            del optimizer.state[parameter]
