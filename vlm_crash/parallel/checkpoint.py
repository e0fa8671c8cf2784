"""Checkpoints of sharded runs: one file with everything, or a folder to which each process adds its shards.

Enters: a module, optimizers, whatever else goes on with a run. Leaves: files; a module and optimizers filled from files
that any number of processes wrote. Invariants: a checkpoint of a final name is complete; both kinds hold the same
tensors under the same names, so that each can be read by any number of processes.

Layout of a folder: torch.distributed.checkpoint's files with the tensors `model.<name>` and
`optimizer_<number>.state.<name>.<key>`, and meta.pt with the rest. A file is Lightning's own.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PosixPath
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint import FileSystemWriter
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.optim import Optimizer

from vlm_crash.parallel.gathering import CPUGroup, fill
from vlm_crash.parallel.shard_reader import ShardReader
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
    sizes = [len(group["params"]) for group in optimizer.param_groups]
    return {"groups": groups, "sizes": sizes, "names": names, "values": values}


def numbered(rest: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """An optimizer's state as torch's own state_dict has it: by the number of the parameter."""
    state: dict[int, dict[str, Any]] = {}
    for number, name in enumerate(rest["names"]):
        found = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
        if found or rest["values"][name]:
            state[number] = {**rest["values"][name], **found}
    start, groups = 0, []
    for group, size in zip(rest["groups"], rest["sizes"], strict=True):
        groups.append({**group, "params": list(range(start, start + size))})
        start += size
    return {"state": state, "param_groups": groups}


def load_file(path: Path) -> dict[str, Any]:
    """Read a checkpoint of one file; its tensors stay on the disk until they are used, no code of the file is run."""
    with torch.serialization.safe_globals([PosixPath]):  # a module's settings hold paths
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return content


def plain(content: Any) -> Any:
    """The same with paths as words: readers of checkpoints that run no code know no paths.

    >>> plain({"path": Path("model"), "sizes": (1, 2)})
    {'path': 'model', 'sizes': (1, 2)}
    """
    if isinstance(content, Path):
        return str(content)
    if type(content) in (list, tuple):
        return type(content)(plain(item) for item in content)
    return {key: plain(value) for key, value in content.items()} if isinstance(content, dict) else content


def save_file(content: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint of one file.

    Raises:
        OSError: the machine refuses (no space).
    """
    with whole_file(path) as part:
        _save(content, part)


def _save(content: Mapping[str, Any], path: Path) -> None:
    """torch.save through a file of ours: its own tells a full disk as a RuntimeError without a reason."""
    try:
        with path.open("wb") as file:
            torch.save(plain(content), file)
    except RuntimeError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__context__
        if cause is None:
            raise
        raise cause from error


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
    try:
        dcp.save(dict(tensors), storage_writer=FileSystemWriter(part), process_group=group.group)
    except CheckpointException as error:  # of all processes, with what each of them met
        refused = next((fault for fault, _ in error.failures.values() if isinstance(fault, OSError)), None)
        if refused is None:
            raise
        if is_first:
            shutil.rmtree(part, ignore_errors=True)
        raise OSError(
            refused.errno,
            f"cannot write ({refused.strerror}); free some space or set --output_dir elsewhere",
            str(path),
        ) from error
    if is_first:
        _save(rest, part / META)
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
        self.sizes: dict[str, tuple[torch.Size, torch.dtype]]
        self.rest: dict[str, Any]
        if self.is_sharded:
            self.rest = load_file(self.path / META)
            self.sizes = {
                name: (stored.size, stored.properties.dtype)
                for name, stored in ShardReader(self.path).read_metadata().state_dict_metadata.items()
                if isinstance(stored, TensorStorageMetadata)
            }
        elif self.path.is_file():
            content = load_file(self.path)
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
                storage_reader=ShardReader(self.path),
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


def check_model(stored: Stored, module: nn.Module, folder: Path | str, strict: bool = True) -> None:
    """Refuse another model's checkpoint by the names and shapes of its tensors.

    Raises:
        ValueError: names the first tensor of each kind of difference.
    """
    state = module.state_dict()
    names, given = list(_first_names(module, state)), set(stored.model_names)
    missing = [name for name in names if name not in given] if strict else []
    unknown = sorted(given - set(state)) if strict else []
    shapes = [
        f"{name}: {tuple(stored.sizes[f'model.{name}'][0])} in the checkpoint, {tuple(state[name].shape)} in the model"
        for name in names
        if name in given and tuple(stored.sizes[f"model.{name}"][0]) != tuple(state[name].shape)
    ]
    found = {"missing": missing, "unknown": unknown, "of another shape": shapes}
    differences = [f"{len(kind)} tensors {word} (first: {kind[0]})" for word, kind in found.items() if kind]
    if differences:
        raise ValueError(
            f"{stored.path} is a checkpoint of another model than {folder}: {', '.join(differences)}; "
            "set --model.path to the folder that the checkpoint was trained from"
        )


def load_model(stored: Stored, module: nn.Module, strict: bool = True) -> None:
    """Fill a module's tensors.

    Raises:
        ValueError: names or shapes differ.
    """
    check_model(stored, module, "this run's", strict)
    state, given = module.state_dict(), set(stored.model_names)
    stored.read({f"model.{name}": state[name] for name in _first_names(module, state) if name in given})


def whole_content(path: Path) -> dict[str, Any]:
    """A checkpoint folder as if it were a file, for a run that is not sharded; a second name of a tied parameter may
    be missing.

    Raises:
        ValueError: there is none, or it is not complete.
    """
    stored = Stored(path)
    content = {key: value for key, value in stored.rest.items() if key != OTHERS}
    content["state_dict"] = dict(stored.read_model())
    states = []
    for number, rest in enumerate(stored.rest.get(OTHERS, ())):
        prefix = f"optimizer_{number}.state."
        names = [name for name in stored.sizes if name.startswith(prefix)]
        tensors = {name: torch.empty(stored.sizes[name][0], dtype=stored.sizes[name][1]) for name in names}
        stored.read(tensors)
        states.append(numbered(rest, {name.removeprefix(prefix): value for name, value in tensors.items()}))
    if states:
        content["optimizer_states"] = states
    return content


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
        sizes = [len(group["params"]) for group in optimizer.param_groups]
        if stored.is_sharded:
            groups, given, given_sizes = rest["groups"], rest["names"], rest["sizes"]
            labels, values = names, [rest["values"].get(name, {}) for name in names]
        else:
            groups, given = rest["param_groups"], names
            given_sizes = [len(group["params"]) for group in groups]
            labels = [str(index) for index in range(len(names))]
            values = [rest["state"].get(index, {}) for index in range(len(names))]
        if given != names or given_sizes != sizes:
            other = sorted(set(given) ^ set(names))
            raise ValueError(
                f"{stored.path} trained other parameters than this run ({sum(given_sizes)} and {sum(sizes)} tensors"
                f"{f', first of the differences: {other[0]}' if other else ''}); set --model.freeze as it was"
            )
        for group, saved in zip(optimizer.param_groups, groups, strict=True):
            group.update({key: value for key, value in saved.items() if key != "params"})
        _load_state(stored, number, optimizer, labels, values)


def _load_state(
    stored: Stored, number: int, optimizer: Optimizer, labels: Sequence[str], values: Sequence[Mapping[str, Any]]
) -> None:
    """Make the state that an optimizer has on disk, and fill it.

    Args:
        labels: what each parameter's state is called there.
        values: what is no tensor in each parameter's state.
    """
    targets: dict[str, Tensor] = {}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    prefix = f"optimizer_{number}.state."
    keys: dict[str, list[str]] = {}
    for name in stored.sizes:
        if name.startswith(prefix):
            label, key = name.removeprefix(prefix).rsplit(".", 1)
            keys.setdefault(label, []).append(key)
    optimizer.state.clear()
    for label, parameter, others in zip(labels, parameters, values, strict=True):
        state = {key: value for key, value in others.items() if not isinstance(value, Tensor)}
        for key in keys.get(label, ()):
            name = f"{prefix}{label}.{key}"
            size, dtype = stored.sizes[name]
            like = tuple(size) == tuple(parameter.shape)
            tensor = torch.empty_like(parameter, dtype=dtype) if like else torch.empty(size, dtype=dtype)
            state[key] = targets[name] = tensor.detach()
        if state:
            optimizer.state[parameter] = state
    stored.read(targets)
