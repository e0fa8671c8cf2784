"""A layer of each of InternVL's towers, and its projector, as operations on sizes.

Enters: a Tape, a Shape, a Setting, the unit of weights. Leaves: a layer's result; what it keeps is on the tape.
"""

from dataclasses import dataclass

from vlm_crash.parallel.memory_layers import (
    Compute,
    Heads,
    attention,
    attention_by_frames,
    linear,
    lora,
    norm,
    rotated,
    scale,
)
from vlm_crash.parallel.memory_shapes import Setting, Shape
from vlm_crash.parallel.memory_tape import Leaf, Sized, Tape
from vlm_crash.parallel.memory_units import Unit


@dataclass(frozen=True)
class Towers:
    """Layers, with the names and the order of transformers' modelling files.

    Args:
        tape: to compute on.
        shape: of the model.
        setting: of the run.
        how: it computes.
        width: bytes of a number between layers.
    """

    tape: Tape
    shape: Shape
    setting: Setting
    how: Compute
    width: int

    def _linear(self, unit: Unit, name: str, x: Sized, sizes: tuple[int, int], bias: bool) -> Sized:
        setting = self.setting
        if not setting.lora_rank:
            return linear(self.tape, x, sizes, unit.leaf, self.how, bias)
        if name not in setting.lora_targets or unit.leaf is None:
            return linear(self.tape, x, sizes, None, self.how, bias)
        return lora(self.tape, x, sizes, unit.leaf, setting.lora_rank, self.how, bias)

    def projector(self, unit: Unit, x: Sized) -> Sized:
        shape, tape = self.shape, self.tape
        leaf, wide, d = unit.leaf, shape.vision.width * shape.fold**2, shape.language.width
        h = norm(tape, x, leaf, wide, self.how, rms=False)
        h = linear(tape, h, (wide, d), leaf, self.how)
        h = tape.activation(h)
        return linear(tape, h, (d, d), leaf, self.how)

    def vision_layer(self, unit: Unit, x: Sized) -> Sized:
        tape, tower, leaf = self.tape, self.shape.vision, self._own(unit)
        normed = norm(tape, x, leaf, tower.width, self.how, rms=tower.rms)
        attended = self._vision_attention(unit, normed)
        del normed
        attended = scale(tape, attended, leaf, tower.width)
        x = tape.add(attended, x)
        out = norm(tape, x, leaf, tower.width, self.how, rms=tower.rms)
        h = self._linear(unit, "fc1", out, (tower.width, tower.inner), True)
        h = tape.activation(h)
        h = self._linear(unit, "fc2", h, (tower.inner, tower.width), True)
        out = h
        del h
        out = scale(tape, out, leaf, tower.width)
        return tape.add(out, x)

    def _own(self, unit: Unit) -> Leaf | None:
        """Where gradients of a layer's own vectors go: nowhere, beside adapters."""
        return None if self.setting.lora_rank else unit.leaf

    def _vision_attention(self, unit: Unit, x: Sized) -> Sized:
        tape, tower, setting = self.tape, self.shape.vision, self.setting
        square = (tower.width, tower.width)
        q, k, v = (self._linear(unit, name, x, square, tower.qkv_bias) for name in ("q_proj", "k_proj", "v_proj"))
        if tower.qk_norm:
            q, k = (norm(tape, given, self._own(unit), tower.width, self.how, rms=True) for given in (q, k))
        frames = setting.num_frames * setting.batch_size
        heads = Heads(frames, self.shape.patches + 1, tower.heads, tower.heads, tower.head_size)
        if setting.vision_chunk:
            out = attention_by_frames(tape, q, k, v, heads, setting.vision_chunk, self.how)
        else:
            out = attention(tape, q, k, v, heads, self.how)
        return self._linear(unit, "projection_layer", out, square, True)

    def language_layer(self, unit: Unit, x: Sized) -> Sized:
        tape, tower, leaf = self.tape, self.shape.language, self._own(unit)
        residual = x
        h = norm(tape, x, leaf, tower.width, self.how, rms=True)
        h = self._language_attention(unit, h)
        x = tape.add(residual, h)
        residual = x
        h = norm(tape, x, leaf, tower.width, self.how, rms=True)
        gate = tape.activation(self._linear(unit, "gate_proj", h, (tower.width, tower.inner), False))
        up = self._linear(unit, "up_proj", h, (tower.width, tower.inner), False)
        both = tape.mul(gate, up)
        del gate, up
        h = self._linear(unit, "down_proj", both, (tower.inner, tower.width), False)
        return tape.add(residual, h)

    def _language_attention(self, unit: Unit, x: Sized) -> Sized:
        tape, tower, setting = self.tape, self.shape.language, self.setting
        wide, small = tower.heads * tower.head_size, tower.kv_heads * tower.head_size
        q = self._linear(unit, "q_proj", x, (tower.width, wide), tower.qkv_bias)
        k = self._linear(unit, "k_proj", x, (tower.width, small), tower.qkv_bias)
        v = self._linear(unit, "v_proj", x, (tower.width, small), tower.qkv_bias)
        q, k = rotated(tape, q, self.width), rotated(tape, k, self.width)
        heads = Heads(
            setting.batch_size, setting.num_tokens(self.shape), tower.heads, tower.kv_heads, tower.head_size,
            causal=True, masked=setting.is_padded,
        )  # fmt: skip
        out = attention(tape, q, k, v, heads, self.how)
        return self._linear(unit, "o_proj", out, (wide, tower.width), tower.out_bias)
