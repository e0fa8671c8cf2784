"""One training step of InternVL in bytes: CrashVLM's forward pass, backward pass and AdamW's step.

Enters: a Shape, a Setting. Leaves: the ledger of a step that follows another one (AdamW's state is there, and so are
the last step's gradients until Lightning's zero_grad, which comes between forward and backward).
"""

from collections.abc import Callable
from dataclasses import dataclass

from vlm_crash.parallel.memory_layers import Compute, norm
from vlm_crash.parallel.memory_shapes import Setting, Shape, Tower
from vlm_crash.parallel.memory_tape import Leaf, Ledger, Sized, Tape
from vlm_crash.parallel.memory_towers import Towers
from vlm_crash.parallel.memory_units import Sharding, Traffic, Unit

MOMENTS = (
    "vision forward",
    "language forward",
    "loss head",
    "loss head backward",
    "language backward",
    "vision backward",
    "optimizer step",
)


def walk(shape: Shape, setting: Setting) -> Ledger:
    """The ledger of a training step."""
    return Step(shape, setting).run()


@dataclass(frozen=True)
class Parts:
    """The units of a model, in the order of its forward pass."""

    root: Unit
    vision: list[Unit]
    projector: Unit
    embedding: Unit
    language: list[Unit]
    head: Unit

    @property
    def all(self) -> list[Unit]:
        found = [self.root, *self.vision, self.projector, self.embedding, *self.language, self.head]
        return list(dict.fromkeys(found))


class Step:
    """A step of one process.

    Args:
        shape: of the model.
        setting: of the run.
    """

    def __init__(self, shape: Shape, setting: Setting) -> None:
        self.shape, self.setting, self.tape = shape, setting, Tape()
        width = setting.compute_width
        autocast = width != 4 and setting.word in ("plain", "ddp")
        self.how = Compute(width, autocast, setting.kernel == "math")
        #: Bytes of a number between layers.
        self.width = setting.base_width if autocast else width
        self.towers = Towers(self.tape, shape, setting, self.how, self.width)
        self.traffic = Traffic()
        self.sharding = Sharding(setting.word, setting.sharers, width, setting.reduce_width, setting.cpu_offload)
        self.parts = self._units()
        frames = setting.num_frames * setting.batch_size
        self.batch = [self.tape.new(frames * 3 * shape.image_size**2, 4)]  # pixels, which stay for the whole step

    def _unit(self, tower: str, numel: int, adapters: int = 0) -> Unit:
        """Weights of a tower; with LoRA its adapters alone are trained."""
        setting = self.setting
        trained = numel if setting.trains(tower) else 0
        added = adapters if tower in setting.lora_towers else 0
        width = setting.base_width if setting.lora_rank else 4
        unit = Unit(self.tape, self.sharding, self.traffic, numel + added, trained + added, width)
        unit.is_checkpointed = tower in setting.checkpointed
        return unit

    def _units(self) -> Parts:
        shape, setting = self.shape, self.setting
        roots = {"vision": shape.vision_root, "language": shape.language_root}
        trained = sum(numel for tower, numel in roots.items() if setting.trains(tower))
        width = setting.base_width if setting.lora_rank else 4
        root = Unit(self.tape, self.sharding, self.traffic, sum(roots.values()), trained, width)
        tables = shape.vocab_size * shape.language.width

        def layers(name: str, tower: Tower) -> list[Unit]:
            adapters = tower.adapters(setting.lora_rank, setting.lora_targets)
            return [self._unit(name, tower.layer, adapters) for _ in range(tower.layers)]

        return Parts(
            root=root,
            vision=layers("vision", shape.vision),
            projector=self._unit("projector", shape.projector),
            embedding=root if shape.tied else self._unit("language", tables),
            language=layers("language", shape.language),
            head=root if shape.tied else self._unit("language", tables),
        )

    def run(self) -> Ledger:
        tape, units, ledger = self.tape, self.parts.all, self.tape.ledger
        for unit in units:
            unit.end_step()
        ledger.begin(MOMENTS[0])
        loss = self._forward()
        for unit in units:
            unit.end_forward()
        if self.setting.accumulate == 1:
            for unit in units:
                unit.zero_grad()
        ledger.begin(MOMENTS[3])
        assert loss.node is not None, "nothing is trained"
        tape.backward(loss.node, tape.new(1, 4))
        for unit in units:
            unit.end_backward()
        self.traffic.reduced_before = None
        ledger.begin(MOMENTS[6])
        self._optimizer_step()  # Lightning holds the batch until then
        return ledger

    def _optimizer_step(self) -> None:
        """AdamW needs the roots of the second moments: of a whole parameter group at once on a GPU (foreach), and on
        a CPU of one weight at a time, twice."""
        if self.sharding.offload:
            return
        share = self.sharding.share
        if self.setting.is_cpu:
            largest = max((self.shape.largest_weight(tower) for tower in self._trained_towers()), default=0)
            temporary = [self.tape.new(share(largest), 4, "optimizer") for _ in range(2)]
        else:
            parts = self.parts
            language = dict.fromkeys([*parts.language, parts.embedding, parts.head])
            groups = (parts.vision, [parts.projector], list(language))
            largest = max(sum(share(unit.trained) for unit in group) for group in groups)
            temporary = [self.tape.new(largest, 4, "optimizer")]
        del temporary

    def _trained_towers(self) -> list[str]:
        return [tower for tower in ("vision", "projector", "language") if self.setting.trains(tower)]

    # ------------------------------------------------------------ the forward pass

    def _mark(self, x: Sized, moment: str) -> Sized:
        """In the backward pass a moment begins here."""

        def begin(saved: object, grad: Sized) -> list[Sized | None]:
            self.tape.ledger.begin(moment)
            return [grad]

        return x if x.node is None else self.tape.result(x.view(), [x], [], begin)

    def _forward(self) -> Sized:
        tape, ledger, parts = self.tape, self.tape.ledger, self.parts
        parts.root.before_forward()
        visual = self._vision()
        visual = self._mark(visual, MOMENTS[5])
        ledger.begin(MOMENTS[1])
        x = self._prompt(visual)
        del visual
        for unit in parts.language:
            x = self._layer(unit, self.towers.language_layer, x, "language" in self.setting.checkpointed)
        root = self._root_leaf("language")
        hidden = norm(tape, x, root, self.shape.language.width, self.how, rms=True)
        del x
        hidden = self._mark(hidden, MOMENTS[4])
        ledger.begin(MOMENTS[2])
        loss = self._loss(hidden)
        parts.root.after_forward()
        self.traffic.gathered_before = None
        del hidden
        root_unit = parts.root

        def enter(saved: object, grad: Sized) -> list[Sized | None]:
            root_unit.before_backward()
            return [grad]

        return tape.result(loss.view(), [loss], [], enter)

    def _root_leaf(self, tower: str) -> Leaf | None:
        return self.parts.root.leaf if self.setting.trains(tower) else None

    def _layer(self, unit: Unit, layer: Callable[[Unit, Sized], Sized], x: Sized, again: bool) -> Sized:
        def compute(given: Sized) -> Sized:
            def run(held: Sized) -> Sized:
                return layer(unit, held)

            return self.tape.checkpoint(run, given) if again else layer(unit, given)

        return unit.around(compute, x)

    def _vision(self) -> Sized:
        """Visual tokens as the language model takes them (models/vision.py)."""
        tape, shape, setting = self.tape, self.shape, self.setting
        tower, frames = shape.vision, setting.num_frames * setting.batch_size
        leaf = self._root_leaf("vision")
        x = self._patches(frames, leaf)
        states = [x] if shape.keeps_states else []
        again = "vision" in setting.checkpointed
        for unit in self.parts.vision:
            x = self._layer(unit, self.towers.vision_layer, x, again)
            if shape.keeps_states:
                states.append(x)
        tokens = frames * shape.patches * tower.width
        x = self._resized(x, tokens)
        folded = tape.copy(tape.copy(x))  # pixel shuffle: two permutations made contiguous
        del x, states
        joined = tape.copy(folded)
        del folded
        if shape.merged_tokens:
            joined = self._merged(joined, frames * shape.merged_tokens * tower.width * shape.fold**2)
        projector = self.parts.projector
        x = projector.around(lambda given: self.towers.projector(projector, given), joined)
        return tape.copy(x)

    def _resized(self, x: Sized, numel: int) -> Sized:
        """A slice: the same memory forward, a zero-padded gradient backward."""
        before, width = x.numel, x.width
        out = Sized(numel, width, x.memory)
        return self.tape.result(out, [x], [], lambda saved, grad: [self.tape.new(before, width)])

    def _patches(self, frames: int, leaf: Leaf | None) -> Sized:
        tape, shape, width = self.tape, self.shape, self.how.width
        d = shape.vision.width
        pixels = self.batch[0].view() if self.width == 4 and width == 4 else tape.like(self.batch[0], width)
        numel = shape.patch_weights

        def run(saved: object, grad: Sized) -> list[Sized | None]:
            return [tape.new(numel, width, "gradients")]

        patches = tape.result(tape.new(frames * shape.patches * d, width), [leaf], [pixels] if leaf else [], run)
        del pixels
        x = tape.new(frames * (shape.patches + 1) * d, self.width)
        x = tape.result(x, [patches], [], lambda saved, grad: [tape.new(frames * shape.patches * d, width)])
        del patches
        out = tape.like(x)
        return tape.result(
            out, [x, leaf], [], lambda saved, grad: [grad, tape.new((shape.patches + 1) * d, width, "gradients")]
        )

    def _merged(self, x: Sized, numel: int) -> Sized:
        """Token merging (models/token_merging.py), in fp32: matching, then means."""
        tape, width, before = self.tape, x.width, x.numel
        wide = tape.cast(x.view(), 4)
        rounded = width != 4
        # Matching halves the tokens: their sums, means, and means times sizes, and what rounding copies; or, where
        # nothing is rounded, a mean over heads, which is small.
        matching = [tape.new(before // 2, 4) for _ in range(4 if rounded else 0)]
        del matching
        sums = tape.new(numel, 4)
        means = tape.new(numel, 4)
        del sums, wide
        out = tape.cast(means, width)
        del means

        def run(saved: object, grad: Sized) -> list[Sized | None]:
            small = tape.new(numel, 4)
            gathered = tape.new(before, 4)
            del small
            return [tape.new(before, width) if width != 4 else gathered]

        return tape.result(out.view(), [x], [], run)

    def _prompt(self, visual: Sized) -> Sized:
        """Token embeddings, with visual tokens where they belong."""
        tape, shape, unit = self.tape, self.shape, self.parts.embedding
        numel = self.setting.batch_size * self.setting.num_tokens(shape) * shape.language.width
        table = shape.vocab_size * shape.language.width
        leaf = (unit.shared_leaf if shape.tied else unit.leaf) if self._trains_tables else None

        def look_up(ids: Sized) -> Sized:
            out = tape.new(numel, self.width)
            width = self.width
            return tape.result(out, [leaf], [], lambda saved, grad: [tape.new(table, width, "gradients")])

        ids = tape.new(0, 8)
        text = look_up(ids) if shape.tied else unit.around(look_up, ids)
        sizes, width = (text.numel, visual.numel), self.width
        visual = tape.cast(visual, width)
        needs = (text.node is not None, visual.node is not None)

        def run(saved: object, grad: Sized) -> list[Sized | None]:
            return [tape.new(size, width) if need else None for size, need in zip(sizes, needs, strict=True)]

        return tape.result(tape.like(text), [text, visual], [], run)

    @property
    def _trains_tables(self) -> bool:
        return self.setting.trains("language")

    def _loss(self, hidden: Sized) -> Sized:
        """Logits at labels alone, and their cross entropy in fp32 (models/internvl.py)."""
        tape, shape, unit = self.tape, self.shape, self.parts.head
        rows = self.setting.batch_size * self.setting.label_tokens
        d, vocab, before = shape.language.width, shape.vocab_size, hidden.numel
        leaf = (unit.shared_leaf if shape.tied else unit.leaf) if self._trains_tables else None

        def spread(saved: object, grad: Sized) -> list[Sized | None]:
            temporary = tape.new(before, grad.width)  # zeros, which index_put copies
            out = tape.new(before, grad.width)
            del temporary
            return [out]

        picked = tape.result(tape.new(rows * d, hidden.width), [hidden], [], spread)
        width = self.how.width

        def project(x: Sized) -> Sized:
            needs = x.node is not None

            def run(saved: object, grad: Sized) -> list[Sized | None]:
                weights = tape.new(vocab * d, width, "gradients") if leaf else None
                return [tape.new(rows * d, width) if needs else None, weights]

            return tape.result(tape.new(rows * vocab, width, "logits"), [x, leaf], [x] if leaf else [], run)

        picked = tape.cast(picked, width)
        logits = project(picked) if shape.tied else unit.around(project, picked)
        logits = tape.cast(logits, 4, "logits")
        soft = tape.new(rows * vocab, 4, "logits")

        def run(saved: object, grad: Sized) -> list[Sized | None]:
            at_labels = tape.new(rows * vocab, 4, "logits")
            out = tape.new(rows * vocab, 4, "logits")
            del at_labels
            return [out]

        return tape.result(tape.new(1, 4), [logits], [soft], run)
