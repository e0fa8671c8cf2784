"""Weights that are gathered together, and what becomes of their gradients: FSDP2's buffers, or plain parameters.

Enters: numbers of weights, a Run. Leaves: bytes on the tape's ledger. Source: torch 2.14
torch/distributed/fsdp/_fully_shard/_fsdp_param_group.py and _fsdp_collectives.py, whose order of making and freeing
buffers this follows.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from vlm_crash.parallel.memory_tape import Leaf, Sized, Tape


@dataclass(frozen=True)
class Sharding:
    """How weights are spread.

    Args:
        word: zero3, zero2, none or hybrid (FSDPStrategy's); plain: parameters as they are, on one device; ddp: the same
            on several.
        sharers: processes that share one copy.
        width: bytes of a number in gathered weights (under plain and ddp: in those that autocast makes).
        reduce_width: bytes of a number while gradients are summed.
        offload: shards and optimizer state lie in the machine's memory.
    """

    word: str
    sharers: int
    width: int
    reduce_width: int
    offload: bool = False

    @property
    def gathers(self) -> bool:
        """Whether there is a copy of the weights to compute with."""
        return self.is_fsdp or self.width != 4

    @property
    def is_fsdp(self) -> bool:
        return self.word not in ("plain", "ddp")

    @property
    def frees(self) -> bool:
        """Whether gathered weights are given back between forward and backward."""
        return self.word in ("zero3", "hybrid")

    def share(self, numel: int) -> int:
        """Weights that one process holds."""
        return -(-numel // self.sharers) if self.is_fsdp else numel


@dataclass
class Traffic:
    """Buffers that one layer's communication leaves to the next one's (FSDPCommContext)."""

    gathered_before: Sized | None = None
    reduced_before: Sized | None = None
    order: list["Unit"] = field(default_factory=list)


class Unit:
    """Weights that come and go together.

    Args:
        numel: all of them.
        trained: those with gradients.
        frozen_width: bytes of a number in those without.
    """

    def __init__(
        self, tape: Tape, how: Sharding, traffic: Traffic, numel: int, trained: int, frozen_width: int = 4
    ) -> None:
        self.tape, self.how, self.traffic, self.numel, self.trained = tape, how, traffic, numel, trained
        self.is_checkpointed = False
        self.held = []
        if not how.offload:
            self.held = [tape.new(how.share(trained), 4, "parameters")]
            self.held += [tape.new(how.share(numel - trained), frozen_width, "parameters")]
        #: Autocast makes copies of fp32 weights alone.
        self.gathered = numel if how.is_fsdp or frozen_width == 4 else trained
        if trained and not how.offload:
            self.held += [tape.new(how.share(trained), 8, "optimizer")]
        if trained and how.word == "ddp":
            self.held += [tape.new(trained, 4, "gradients")]  # DDP's buckets
        self.grad: list[Sized] = []  # summed over processes, fp32
        self.weights: Sized | None = None
        self.arriving: Sized | None = None
        self.grads: list[Sized] = []
        self.shared: Sized | None = None
        self.kept: Sized | None = None
        self.places: list[int] = []
        self.leaf = Leaf(self._keep) if trained else None
        self.shared_leaf = Leaf(self._keep_shared) if trained else None

    def _keep(self, grad: Sized) -> None:
        if self.how.is_fsdp or self.how.width != 4 or not self.grad:
            self.grads.append(grad.move())  # else it is added to what is there

    def _keep_shared(self, grad: Sized) -> None:
        """One weight of two users (tied embeddings): autograd makes the sum of both in memory of its own."""
        self.shared = grad.move() if self.shared is None else self.tape.like(grad, part="gradients")

    def end_step(self) -> None:
        """The gradients that a finished step leaves until the next zero_grad."""
        if self.trained and not self.how.offload and not self.grad:
            self.grad = [self.tape.new(self.how.share(self.trained), 4, "gradients")]

    def zero_grad(self) -> None:
        self.grad.clear()

    # ------------------------------------------------------------- gathering

    def _gather(self) -> Sized | None:
        """The flat buffer that the weights arrive in."""
        how = self.how
        if how.sharers == 1 or not how.is_fsdp:
            return None
        if how.offload:
            shard = self.tape.new(how.share(self.numel), 4, "gathered")  # from the machine's memory, in fp32
            low = self.tape.new(how.share(self.numel), how.width, "gathered") if how.width != 4 else None
            del low
        elif how.width != 4:
            shard = self.tape.new(how.share(self.numel), how.width, "gathered")
        else:
            shard = None
        flat = self.tape.new(how.share(self.numel) * how.sharers, how.width, "gathered")
        del shard
        return flat

    def _copy_out(self) -> None:
        """Each weight in memory of its own."""
        low = None
        if self.how.is_fsdp and self.how.sharers == 1 and (self.how.width != 4 or self.how.offload):
            low = self.tape.new(self.numel, self.how.width, "gathered")
        self.weights = self.tape.new(self.gathered, self.how.width, "gathered")
        del low

    def before_forward(self) -> None:
        if not self.how.gathers or self.weights is not None:
            return
        flat = self._gather()
        self.traffic.gathered_before = None
        self._copy_out()
        self.traffic.gathered_before = flat

    def after_forward(self) -> None:
        if self.how.frees:
            self.weights = None
        self.places.append(len(self.traffic.order))
        self.traffic.order.append(self)

    def before_backward(self) -> None:
        if not self.how.gathers:
            return
        if self.weights is None:
            flat = self.arriving or self._gather()
            self.arriving = None
            self._copy_out()
            del flat
        place = self.places.pop() if self.places else 0
        if place > 0 and self.how.is_fsdp:
            target = self.traffic.order[place - 1]
            if target.weights is None and target.arriving is None:
                target.arriving = target._gather()

    def after_backward(self) -> None:
        """Sum the gradients over processes, and keep this one's share."""
        how, tape = self.how, self.tape
        self.weights = None
        if not how.is_fsdp:
            self._keep_plain()
            return
        self.traffic.reduced_before = None
        if not self.grads and self.shared is None:
            return
        flat = tape.new(how.share(self.trained) * how.sharers, how.reduce_width, "gradients")
        self.grads.clear()
        self.shared = None
        part = tape.new(how.share(self.trained), how.reduce_width, "gradients")
        if how.reduce_width != 4:
            whole = tape.like(part, 4, "gradients")
            if how.word in ("none", "hybrid"):
                self.kept = part  # until the backward pass ends (AllReduceState)
            part = whole
            del whole
        self.traffic.reduced_before = flat
        if not how.offload and not self.grad:
            self.grad = [part]

    def _keep_plain(self) -> None:
        found = [*self.grads, *([self.shared] if self.shared else [])]
        if found and self.how.width != 4:
            wide = [self.tape.new(self.trained, 4, "gradients")]  # autocast's gradients go back to fp32
            self.grad = self.grad or wide
        elif found and not self.grad:
            self.grad = found
        self.grads.clear()
        self.shared = None

    def end_forward(self) -> None:
        """Autocast forgets its copies; only what is computed again does without them until then."""
        if not self.how.is_fsdp and self.is_checkpointed:
            self.weights = None

    def end_backward(self) -> None:
        """What the root does for units whose inputs had no gradient, and buffers that go last."""
        if self.weights is not None or self.grads or self.shared is not None:
            self.after_backward()
        self.kept = None
        self.places.clear()
        self.arriving = None

    def around(self, compute: Callable[[Sized], Sized], x: Sized) -> Sized:
        """Run a part of the model with these weights there."""
        tape = self.tape
        self.before_forward()

        def leave(saved: object, grad: Sized) -> list[Sized | None]:
            self.after_backward()
            return [grad]

        def enter(saved: object, grad: Sized) -> list[Sized | None]:
            self.before_backward()
            return [grad]

        if x.node is not None:
            x = tape.result(x.view(), [x], [], leave)
        out = compute(x)
        self.after_forward()
        if out.node is not None:
            out = tape.result(out.view(), [out], [], enter)
        return out
