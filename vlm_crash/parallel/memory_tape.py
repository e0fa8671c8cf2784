"""A training step's tensors as bytes: made, kept for the backward pass, given back. No tensor is made.

Enters: sizes. Leaves: bytes alive by part at the worst instant of each moment of a step. Invariant: a tensor is given
back when nothing refers to it any more, as torch does it (CPython counts references), so that a function here that
holds the same names as the model's own holds the same bytes.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

#: What a byte is for; a table over these sums to the peak.
PARTS = ("parameters", "gathered", "gradients", "optimizer", "activations", "attention", "logits")

_numbers = count()


class Ledger:
    """Bytes alive by part, and the worst instant of each moment."""

    def __init__(self) -> None:
        self.live: Counter[str] = Counter(dict.fromkeys(PARTS, 0))
        self.total = 0
        self.moment = "start"
        #: moment -> bytes by part at its worst instant, in the order of the step.
        self.worst: dict[str, dict[str, int]] = {}
        self._most: dict[str, int] = {}

    def begin(self, moment: str) -> None:
        """Bytes that are alive from here on count for this moment."""
        self.moment = moment
        self.change("activations", 0)

    def change(self, part: str, size: int) -> None:
        self.live[part] += size
        self.total += size
        if size >= 0 and self.total > self._most.get(self.moment, -1):
            self._most[self.moment] = self.total
            self.worst[self.moment] = dict(self.live)


class Bytes:
    """Memory of one tensor."""

    __slots__ = ("ledger", "part", "size")

    def __init__(self, ledger: Ledger, part: str, size: int) -> None:
        self.ledger, self.part, self.size = ledger, part, size
        ledger.change(part, size)

    def __del__(self) -> None:
        self.ledger.change(self.part, -self.size)


class Sized:
    """What stands for a tensor: its number of elements, bytes of one, memory (shared by views), and who made it.

    `node` is None where no gradient flows.
    """

    __slots__ = ("memory", "node", "numel", "width")

    def __init__(self, numel: int, width: int, memory: Any, node: "Node | None" = None) -> None:
        self.numel, self.width, self.memory, self.node = numel, width, memory, node

    def view(self) -> "Sized":
        """The same memory, without a gradient."""
        return Sized(self.numel, self.width, self.memory)

    def drop(self) -> None:
        """Refer to the memory no more."""
        self.memory = None

    def move(self) -> "Sized":
        """The memory under a new name, and no more under this one."""
        moved = self.view()
        self.drop()
        return moved


class Node:
    """A step of the backward pass: takes the gradient of a result, gives those of the inputs.

    Args:
        edges: where the gradients go; None: nowhere.
        saved: tensors that the forward pass keeps for it; free as soon as it has run.
        run: (saved, gradient) -> a gradient for each edge.
    """

    __slots__ = ("edges", "number", "run", "saved")

    def __init__(
        self,
        edges: Sequence["Node | None"],
        saved: Sequence[Sized],
        run: Callable[[Sequence[Sized], Sized], Sequence[Sized | None]],
    ) -> None:
        self.edges, self.saved, self.run = list(edges), [tensor.view() for tensor in saved], run
        self.number = next(_numbers)

    def __lt__(self, other: "Node") -> bool:
        return self.number > other.number  # what was computed last goes back first, as in torch's engine


class Leaf(Node):
    """Where a gradient ends: a parameter, or an input of a part that is computed again."""

    def __init__(self, keep: Callable[[Sized], None]) -> None:
        super().__init__((), (), self._end)
        self.keep = keep
        self.number = 1 << 62  # torch's AccumulateGrad goes before all others

    def _end(self, saved: Sequence[Sized], grad: Sized) -> Sequence[Sized | None]:
        self.keep(grad)
        return ()


class Tape:
    """Operations on sizes, and their backward pass."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.records = True
        #: False: there is no backward pass to keep anything for.
        self.keeps = True

    def new(self, numel: int, width: int, part: str = "activations") -> Sized:
        """A new tensor."""
        return Sized(numel, width, Bytes(self.ledger, part, numel * width))

    def result(
        self,
        out: Sized,
        inputs: Sequence["Sized | Node | None"],
        saved: Sequence[Sized],
        run: Callable[[Sequence[Sized], Sized], Sequence[Sized | None]],
    ) -> Sized:
        """`out`, with its node where an input has a gradient."""
        edges = [given.node if isinstance(given, Sized) else given for given in inputs]
        if self.records and any(edges):
            out.node = Node(edges, saved, run)
        return out

    def backward(self, start: Node, grad: Sized) -> None:
        """Run the graph back from a node."""
        grads = {start: grad.move()}
        waiting = [start]
        while waiting:
            node = heapq.heappop(waiting)
            found = list(node.run(node.saved, grads.pop(node)))
            node.saved = []
            for edge in node.edges:
                given = found.pop(0)
                if edge is None or given is None:
                    continue
                if edge in grads:
                    # torch adds in place only where nothing else refers to the first; two inputs of a sum share one.
                    grads[edge] = self.like(given)
                else:
                    grads[edge] = given.view()
                    heapq.heappush(waiting, edge)
                del given
            node.edges = []

    def checkpoint(self, compute: Callable[..., Sized], *inputs: Sized) -> Sized:
        """Keep the inputs alone, and compute again in the backward pass."""
        edges = [given.node for given in inputs]
        if not self.records or not any(edges):
            return compute(*inputs)
        self.records = False
        out = compute(*inputs)
        self.records = True

        def run(saved: Sequence[Sized], grad: Sized) -> Sequence[Sized | None]:
            held: dict[int, Sized] = {}
            leaves = []
            for place, given in enumerate(saved):
                leaf = Leaf(lambda found, place=place: held.__setitem__(place, found)) if edges[place] else None  # type: ignore[misc]
                leaves.append(Sized(given.numel, given.width, given.memory, leaf))
            again = compute(*leaves)
            node = again.node
            del again, leaves
            assert node is not None
            self.backward(node, grad.move())
            return [held.pop(place, None) for place in range(len(edges))]

        out = out.view()
        out.node = Node(edges, inputs, run)
        return out

    # ------------------------------------------------------------- operations

    def like(self, given: Sized, width: int | None = None, part: str = "activations") -> Sized:
        """A new tensor of as many elements."""
        return self.new(given.numel, width or given.width, part)

    def copy(self, given: Sized, width: int | None = None, part: str = "activations") -> Sized:
        """Its values in memory of their own (clone, cat, or another dtype); the gradient is copied back."""
        out = self.like(given, width, part)
        if out.width == given.width:
            return self.result(out, [given], [], lambda saved, grad: [grad])
        before = given.width
        return self.result(out, [given], [], lambda saved, grad: [self.like(grad, before, part)])

    def cast(self, given: Sized, width: int, part: str = "activations") -> Sized:
        """Itself, or a copy of another dtype."""
        return given if given.width == width else self.copy(given, width, part)

    def add(self, one: Sized, other: Sized) -> Sized:
        """A sum keeps nothing, and hands its gradient to both."""
        out = self.like(one, max(one.width, other.width))
        widths = (one.width, other.width)

        def run(saved: Sequence[Sized], grad: Sized) -> Sequence[Sized | None]:
            return [grad if grad.width == width else self.like(grad, width) for width in widths]

        return self.result(out, [one, other], [], run)

    def mul(self, one: Sized, other: Sized) -> Sized:
        """A product keeps both factors where the other one has a gradient."""
        out = self.like(one, max(one.width, other.width))
        needs = (one.node is not None, other.node is not None)

        def run(saved: Sequence[Sized], grad: Sized) -> Sequence[Sized | None]:
            return [self.like(grad) if need else None for need in needs]

        saved = [*([other] if needs[0] else []), *([one] if needs[1] else [])]
        return self.result(out, [one, other], saved, run)

    def activation(self, given: Sized) -> Sized:
        """GELU, SiLU: keep their input."""
        return self.result(self.like(given), [given], [given], lambda saved, grad: [self.like(grad)])
