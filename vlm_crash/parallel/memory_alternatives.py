"""What to change in a run that does not fit: sets of changes with which it does, the fastest first.

Enters: a Plan that does not fit. Leaves: Alternatives, each with its own Plan. Invariant: none has a change that it
would fit without.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from vlm_crash.parallel.memory_plan import LORA_TARGETS, Plan
from vlm_crash.parallel.memory_shapes import Setting, Shape, Tower

FRAMES = (48, 32, 24, 16, 12, 8, 4)
BOTH = frozenset({"vision", "language"})


@dataclass(frozen=True)
class Change:
    """One option more: in words, and what of a Setting it sets."""

    what: str
    sets: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, what: str, **sets: Any) -> "Change":
        return cls(what, tuple(sets.items()))


@dataclass(frozen=True)
class Alternative:
    """A way to make it fit.

    Args:
        changes: all of them.
        plan: with them.
        work: multiplications of a clip, as a share of the run's as it is.
    """

    changes: Sequence[Change]
    plan: Plan
    work: float


def alternatives(plan: Plan, world_size: int) -> list[Alternative]:
    """By the multiplications of a clip; what lets the CPU take the steps comes last, as it waits for that besides.

    Tried are: what costs time alone; and beside it fewer frames (as many as fit), a vision tower that is not trained,
    adapters, AdamW on the CPU; and each of these with fewer frames where it does not do alone. Empty: nothing helps.
    """
    search = _Search(plan)
    same = time_alone(plan.setting, world_size)
    fewer = [(Change.of(f"{frames} frames a clip (--data.num_frames {frames})", num_frames=frames),)
             for frames in FRAMES if frames < plan.setting.num_frames]  # fmt: skip
    others = [(change,) for change in _lossy(plan.setting, world_size)]
    found = [search.first(same, [()])]
    if found[0] is not None:  # what costs more than time is worth a line where it does by itself
        found += [search.first([], ends) for ends in (fewer, *([other] for other in others))]
    else:
        found.append(search.first(same, fewer))
        for other in others:
            found.append(search.first(same, [other]) or search.first(same, [(*other, *less) for less in fewer]))
    unique = {row.plan.setting: row for row in reversed(found) if row is not None}
    return sorted(unique.values(), key=lambda row: (row.plan.setting.cpu_offload, row.work, len(row.changes)))


def smallest(plan: Plan, world_size: int) -> Plan:
    """The lowest peak that the same changes can reach, all that help taken together."""
    same = time_alone(plan.setting, world_size)
    few = min([frames for frames in FRAMES if frames < plan.setting.num_frames], default=plan.setting.num_frames)
    ends = [(), *((change,) for change in _lossy(plan.setting, world_size))]
    less = Change.of("", num_frames=few)
    return min((_changed(plan, [*same, *end, less]) for end in ends), key=lambda row: row.peak_gib)


def work(shape: Shape, setting: Setting) -> float:
    """Multiplications that a clip costs in training: forward, backward, and forward again where activations are.

    A trained tower costs three forward passes; one that gradients only go through, two; one that they do not reach,
    one. Norms, softmax and the projector are left out.
    """
    places, tokens = shape.patches + 1, setting.num_tokens(shape)
    vision = setting.num_frames * _forward(shape.vision, places)
    head = setting.label_tokens * shape.vocab_size * shape.language.width
    language = _forward(shape.language, tokens) + head
    return vision * _passes(setting, "vision") + language * _passes(setting, "language")


def _forward(tower: Tower, tokens: int) -> float:
    linear = tokens * sum(wide * narrow for wide, narrow in tower.matrices.values())
    return tower.layers * (linear + 2 * tokens**2 * tower.width)


def _passes(setting: Setting, tower: str) -> int:
    adapted = bool(setting.lora_rank) and tower in setting.lora_towers
    if tower == "vision" and not (setting.trains(tower) or adapted):
        return 1
    return (3 if setting.trains(tower) else 2) + (tower in setting.checkpointed)


def time_alone(setting: Setting, world_size: int) -> list[Change]:
    """What makes a step slower at most, and leaves what is learnt as it is; the cheapest first."""
    found: list[Change] = []
    is_sharded = setting.word not in ("plain", "ddp")
    shares = is_sharded or world_size > 1
    for chunk in (8, 2):
        if setting.kernel == "math" and (setting.vision_chunk is None or setting.vision_chunk > chunk):
            what = f"vision attention for {chunk} frames at a time (--model.vision_chunk {chunk})"
            found.append(Change.of(what, vision_chunk=chunk))
    if setting.compute_width == 4 and shares:
        found.append(Change.of("fp16 computation (--trainer.precision 16-mixed)", compute_width=2))
    if setting.reduce_width == 4 and is_sharded:
        what = "gradients summed in fp16 (--trainer.strategy.reduce_dtype float16)"
        found.append(Change.of(what, reduce_width=2))
    if setting.batch_size > 1:
        batches = setting.accumulate * setting.batch_size
        options = f"--data.batch_size 1, --trainer.accumulate_grad_batches {batches}"
        if setting.is_packed:
            options = f"--data.batching padded, no --data.pack_tokens, {options}"
        sets = {"batch_size": 1, "is_padded": False, "is_packed": False, "accumulate": batches}
        found.append(Change.of(f"one clip a batch ({options})", **sets))
    if world_size > 1 and setting.word != "zero3":
        option = "--trainer.strategy vlm_crash.parallel.FSDPStrategy, its sharding_strategy zero3"
        found.append(Change.of(f"weights shared out over all GPUs ({option})", word="zero3", sharers=world_size))
    if setting.checkpointed < BOTH:
        what = "activations computed again (--model.activation_checkpointing true)"
        found.append(Change.of(what, checkpointed=BOTH))
    return found


def _lossy(setting: Setting, world_size: int) -> list[Change]:
    """What changes what is learnt, or lets every step wait for the CPU."""
    found: list[Change] = []
    is_sharded = setting.word not in ("plain", "ddp")
    alone = is_sharded and world_size == 1
    if setting.trains("vision") and (setting.trains("projector") or setting.trains("language")):
        freeze = sorted(setting.freeze | {"vision"})
        what = f"the vision tower as it is (--model.freeze [{','.join(freeze)}])"
        found.append(Change.of(what, freeze=frozenset(freeze)))
    if not setting.lora_rank:
        keeps = "projector" in setting.freeze
        option = "--model.lora.rank 16" + (", --model.lora.projector false" if keeps else "")
        option += ", --trainer.strategy auto, as in titan_lora.yaml" if alone else ""
        found.append(Change.of(
            f"adapters of rank 16 in place of the weights ({option})", lora_rank=16, lora_targets=LORA_TARGETS,
            lora_towers=frozenset({"language"}), lora_projector=not keeps, base_width=setting.compute_width,
            **({"word": "plain"} if alone else {}),
        ))  # fmt: skip
    if not setting.cpu_offload:
        option, sets = "--trainer.strategy.cpu_offload true", {}
        if not is_sharded:
            option = "--trainer.strategy vlm_crash.parallel.FSDPStrategy, its cpu_offload true"
            sets = {"word": "zero3", "sharers": world_size}
        found.append(Change.of(f"AdamW on the CPU ({option})", cpu_offload=True, **sets))
    return found


def _changed(plan: Plan, changes: Sequence[Change]) -> Plan:
    sets = {name: value for change in changes for name, value in change.sets}
    setting = replace(plan.setting, **sets)
    if setting.word not in ("plain", "ddp"):
        setting = replace(setting, base_width=4)  # FSDPStrategy's shards are fp32
    if setting.compute_width == 4 or setting.word in ("plain", "ddp"):
        setting = replace(setting, reduce_width=4)  # the default
    return replace(plan, setting=setting)


class _Search:
    """Asks for few plans, each once."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._known: dict[Setting, bool] = {}

    def _fits(self, changes: Sequence[Change]) -> bool:
        plan = _changed(self.plan, changes)
        if plan.setting not in self._known:
            self._known[plan.setting] = plan.fits
        return self._known[plan.setting]

    def first(self, same: Sequence[Change], ends: Sequence[tuple[Change, ...]]) -> Alternative | None:
        """The first of these ends that fits with all that costs time alone, less what it does not need."""
        end = next((end for end in ends if self._fits([*same, *end])), None)
        if end is None:
            return None
        changes = [*same, *end]
        for change in (*reversed(same), *end):  # of what costs time, the dearest first
            less = [other for other in changes if other is not change]
            if self._fits(less):
                changes = less
        plan = _changed(self.plan, changes)
        return Alternative(changes, plan, work(plan.shape, plan.setting) / work(plan.shape, self.plan.setting))
