"""Where in a model the first number that is not finite comes up.

Enters: a model, and inside a search a pass of it over a batch that is known to end badly. Leaves: a Finding, or none.
Invariants: outside of a search the model has no hooks of ours; a search computes nothing that autograd or activation
checkpointing could see, and asks no other process.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.hooks import RemovableHandle

from vlm_crash.parallel.shards import local_part


@dataclass(frozen=True)
class Size:
    """How large numbers are: the largest finite absolute value (None: none is finite), how many are not finite."""

    largest: float | None
    num_not_finite: int
    dtype: str


@dataclass(frozen=True)
class Finding:
    """The first number that was not finite.

    Attributes:
        where: batch, forward, backward, or reduced (gradients are finite until processes or batches are summed).
        module: full name of the module that made it; empty: the code outside of all modules.
        what: which of its numbers.
        parent: the module that calls it.
        inputs: what the module was given (backward: the gradient that came to its output).
        outputs: what it made (backward: the gradient that it passed on).
        has_finite_weights: whether its own weights are finite as it computes with them; None: it has none.
        batch: which batch of the optimizer step, from 0; None: their sum.
    """

    where: str
    module: str
    what: str
    parent: str = ""
    inputs: Size | None = None
    outputs: Size | None = None
    has_finite_weights: bool | None = None
    batch: int | None = None


@torch.no_grad()
def measure(values: Any) -> Size | None:
    """Size of all floating-point tensors in nested values; None: there are none."""
    tensors = [local_part(leaf.detach()) for leaf in tree_leaves(values) if _is_float(leaf)]
    if not tensors:
        return None
    largest: list[float] = []
    num_not_finite = 0
    for tensor in tensors:
        finite = tensor[tensor.isfinite()]
        num_not_finite += tensor.numel() - finite.numel()
        largest += [float(finite.abs().max())] if finite.numel() else []
    dtype = str(tensors[0].dtype).removeprefix("torch.")
    return Size(max(largest, default=None), num_not_finite, dtype)


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _is_bad(size: Size | None) -> bool:
    return size is not None and size.num_not_finite > 0


def has_finite_weights(module: nn.Module) -> bool | None:
    """Whether the weights of a module itself are finite, as far as they lie on this process; None: it has none."""
    weights = [local_part(parameter.detach()) for parameter in module.parameters(recurse=False)]
    return all(bool(weight.isfinite().all()) for weight in weights) if weights else None


class ForwardSearch:
    """Looks at what every module is given and makes: `with ForwardSearch(model) as search: (a forward pass)`."""

    def __init__(self, root: nn.Module) -> None:
        self.found: Finding | None = None
        self.modules = {name: module for name, module in root.named_modules() if name}
        self._names = {module: name for name, module in self.modules.items()}
        self._running: list[tuple[str, Size | None]] = []
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        for module in self.modules.values():
            self._handles.append(module.register_forward_pre_hook(self.before, with_kwargs=True))
            self._handles.append(module.register_forward_hook(self.after))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    @property
    def caller(self) -> str:
        """The module whose code runs now."""
        return self._running[-1][0] if self._running else ""

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if self.found:
            return
        # Additive masks hold infinities on purpose.
        given = measure((args, {name: value for name, value in kwargs.items() if "mask" not in name}))
        if _is_bad(given):
            # The modules before this one gave finite numbers: the code between them did not.
            place, inputs = self._running[-1] if self._running else ("", None)
            self._find("forward", place, f"its own arithmetic, before {self._names[module]}", "", inputs, given)
        self._running.append((self._names[module], given))

    def after(self, module: nn.Module, args: Any, output: Any) -> Any:
        if self.found:
            return
        name, given = self._running.pop()
        made = measure(output)
        if _is_bad(made):
            self._find("forward", name, "its output", self.caller, given, made)

    def _find(self, where: str, name: str, what: str, parent: str, inputs: Size | None, outputs: Size | None) -> None:
        if self.found is None:
            weights = has_finite_weights(self.modules[name]) if name else None
            self.found = Finding(where, name, what, parent, inputs, outputs, weights)


def where_not_finite(root: nn.Module, run: Callable[[], object]) -> str:
    """In words, where the first number of a run that is not finite comes up; the run is one that ends badly."""
    with ForwardSearch(root) as search:
        run()
    if search.found is None:
        return "no module gave one when it was computed again"
    found = search.found
    if not found.module:
        return f"first in {found.what}"
    weights = "; its weights are not finite" if found.has_finite_weights is False else ""
    return f"first in {found.module}, {found.what}{weights}"


class _Watched(torch.autograd.Function):
    """A tensor as it is, whose gradient is looked at."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, look: Callable[[Tensor], None]) -> Tensor:
        ctx.look = look
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        ctx.look(grads[0])
        return grads[0], None


class BackwardSearch(ForwardSearch):
    """Looks at the gradients that come to every module's outputs, go on from its inputs, and stay at its weights.

    Modules inside activation checkpointing run again in the backward pass; the copies of that are never differentiated,
    and weights are watched from the forward pass on (`end_forward` says when it is over).
    """

    def __init__(self, root: nn.Module) -> None:
        super().__init__(root)
        self._is_forward = True
        self._callers: dict[str, str] = {}
        self._came: dict[str, Size | None] = {}
        self._watched: set[int] = set()

    def end_forward(self) -> None:
        self._is_forward = False

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        name = self._names[module]
        if self._is_forward:
            self._callers[name] = self.caller
            self._running.append((name, None))
            # Here sharded weights are gathered: what autograd sees are these.
            for part, parameter in module.named_parameters(recurse=False):
                if parameter.requires_grad and id(parameter) not in self._watched:
                    self._watched.add(id(parameter))
                    self._handles.append(parameter.register_hook(self._stays(name, part)))
        return tree_map(self._watch(self._leaves(name)), args), tree_map(self._watch(self._leaves(name)), dict(kwargs))

    def after(self, module: nn.Module, args: Any, output: Any) -> Any:
        if self._is_forward:
            self._running.pop()
        return tree_map(self._watch(self._comes(self._names[module])), output)

    @staticmethod
    def _watch(look: Callable[[Tensor], None]) -> Callable[[Any], Any]:
        def watched(value: Any) -> Any:
            return _Watched.apply(value, look) if _is_float(value) and value.requires_grad else value

        return watched

    def _comes(self, name: str) -> Callable[[Tensor], None]:
        def look(grad: Tensor) -> None:
            if self.found:
                return
            self._came[name] = measure(grad)
            if _is_bad(self._came[name]):
                # Nothing that was computed from this output has passed on such a gradient: the code between has.
                caller = self._callers[name]
                self._find("backward", caller, f"its own arithmetic, after {name}", "", None, self._came[name])

        return look

    def _leaves(self, name: str) -> Callable[[Tensor], None]:
        def look(grad: Tensor) -> None:
            self._judge(name, "the gradient of its input", grad)

        return look

    def _stays(self, name: str, part: str) -> Callable[[Tensor], None]:
        def look(grad: Tensor) -> None:
            self._judge(name, f"the gradient of its {part}", grad)

        return look

    def _judge(self, name: str, what: str, grad: Tensor) -> None:
        size = None if self.found else measure(grad)
        if _is_bad(size):
            self._find("backward", name, what, self._callers[name], self._came.get(name), size)


@torch.no_grad()
def bad_weights(model: nn.Module) -> tuple[str, ...]:
    """Names of modules of which a weight that is stored is not finite, as far as it lies on this process."""
    return tuple(name for name, module in model.named_modules() if has_finite_weights(module) is False)


@torch.no_grad()
def bad_gradients(model: nn.Module) -> Iterator[tuple[str, Size]]:
    """Names of parameters whose gradient is not finite, as far as it lies on this process."""
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            size = measure(parameter.grad)
            if size is not None and size.num_not_finite:
                yield name, size
