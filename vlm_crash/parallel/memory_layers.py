"""The layers of InternVL as operations on sizes, in the order and with the names of transformers' modelling files.

Enters: a Tape, sizes. Leaves: what the forward pass keeps and what the backward pass makes, on the tape's ledger.
Sources: transformers 5.23 modeling_internvl.py, modeling_qwen2.py and modeling_llama.py (which differ in biases
alone); torch's _scaled_dot_product_attention_math in aten/src/ATen/native/transformers/attention.cpp.
The numbers of bytes come from what these make and what autograd saves of it; none is fitted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vlm_crash.parallel.memory_tape import Leaf, Sized, Tape


@dataclass(frozen=True)
class Compute:
    """How a run computes.

    Args:
        width: bytes of a number in the weights that compute, and in activations.
        autocast: activations between layers are fp32 and weights are cast where they are used (Lightning's own
            mixed precision), not gathered in half precision.
        math: whether attention makes whole score matrices (SDPA's math kernel).
    """

    width: int
    autocast: bool
    math: bool


def norm(tape: Tape, x: Sized, leaf: Leaf | None, width: int, how: Compute, rms: bool) -> Sized:
    """LayerNorm, one operation (autocast does it in fp32), or RMSNorm, which transformers writes out in fp32.

    `width` is that of one vector.
    """
    if rms:
        return _rms_norm(tape, x, leaf, width)
    return _layer_norm(tape, tape.cast(x, 4) if how.autocast else x, leaf, width)


def _layer_norm(tape: Tape, x: Sized, leaf: Leaf | None, width: int) -> Sized:
    size = x.width
    needs = x.node is not None

    def run(saved: Sequence[Sized], grad: Sized) -> Sequence[Sized | None]:
        return [tape.like(grad) if needs else None, tape.new(2 * width, size, "gradients") if leaf else None]

    return tape.result(tape.like(x), [x, leaf], [x], run)


def _rms_norm(tape: Tape, x: Sized, leaf: Leaf | None, width: int) -> Sized:
    wide = tape.cast(x, 4)
    square = tape.like(wide)
    del square

    def run(saved: Sequence[Sized], grad: Sized) -> Sequence[Sized | None]:
        out = tape.like(grad)  # grad * rsqrt
        # Through the mean of squares: the expanded gradient, x ** 1, twice that, and their product.
        temporary = [tape.like(grad) for _ in range(4)]
        del temporary
        return [out]

    scaled = tape.result(tape.like(wide), [wide], [wide], run)
    del wide
    low = tape.cast(scaled, x.width)
    del scaled
    return scale(tape, low, leaf, width)


def scale(tape: Tape, x: Sized, leaf: Leaf | None, width: int) -> Sized:
    """A vector of weights times x: keeps x for the vector's gradient."""
    size = x.width
    needs = x.node is not None

    def run(saved: Sequence[Sized], grad: Sized) -> Sequence[Sized | None]:
        out = tape.like(grad) if needs else None
        if leaf is None:
            return [out, None]
        product = tape.like(grad)  # grad * x, before it is summed to the vector
        del product
        return [out, tape.new(width, size, "gradients")]

    return tape.result(tape.like(x), [x, leaf], [x] if leaf else [], run)


def linear(tape: Tape, x: Sized, sizes: tuple[int, int], leaf: Leaf | None, how: Compute, bias: bool = True) -> Sized:
    """A matrix times x: keeps x for the matrix' gradient."""
    wide, narrow = sizes
    x = tape.cast(x, how.width)
    needs = x.node is not None
    numel, size = wide * narrow + (narrow if bias else 0), how.width

    def run(saved: Sequence[Sized], grad: Sized) -> Sequence[Sized | None]:
        back = tape.new(grad.numel // narrow * wide, size) if needs else None
        return [back, tape.new(numel, size, "gradients") if leaf else None]

    out = tape.new(x.numel // wide * narrow, how.width)
    return tape.result(out, [x, leaf], [x] if leaf else [], run)


def lora(
    tape: Tape, x: Sized, sizes: tuple[int, int], leaf: Leaf | None, rank: int, how: Compute, bias: bool = True
) -> Sized:
    """A frozen matrix beside a trained pair of thin ones (peft's Linear): W x + scaling * B A x."""
    out = linear(tape, x, sizes, None, how, bias)
    thin = linear(tape, x, (sizes[0], rank), leaf, how, bias=False)
    update = linear(tape, thin, (rank, sizes[1]), leaf, how, bias=False)
    scaled = tape.result(tape.like(update), [update], [], lambda saved, grad: [tape.like(grad)])
    del update
    return tape.add(out, scaled)


@dataclass(frozen=True)
class Heads:
    """Shape of an attention: rows (frames, or clips), tokens of a row, heads, heads of keys and values, head size.

    `causal`: a mask is made; `masked`: one for each row, as there is padding.
    """

    rows: int
    tokens: int
    heads: int
    kv_heads: int
    size: int
    causal: bool = False
    masked: bool = False

    @property
    def numel(self) -> int:
        return self.rows * self.tokens * self.heads * self.size

    @property
    def scores(self) -> int:
        return self.rows * self.heads * self.tokens**2


def attention(tape: Tape, q: Sized, k: Sized, v: Sized, heads: Heads, how: Compute) -> Sized:
    """Scaled dot product attention as transformers calls it, with whole score matrices or without."""
    repeats = heads.kv_heads < heads.heads
    if repeats and heads.masked:  # transformers' repeat_kv; without a mask SDPA repeats
        k, v = (_repeated(tape, given, heads) for given in (k, v))
        repeats = False
    q, k, v = (tape.cast(given, how.width) for given in (q, k, v))
    return (_math if how.math else _fused)(tape, q, k, v, heads, repeats)


def _repeated(tape: Tape, given: Sized, heads: Heads) -> Sized:
    small = given.numel
    return tape.result(
        tape.new(heads.numel, given.width), [given], [], lambda saved, grad: [tape.new(small, grad.width)]
    )


def _fused(tape: Tape, q: Sized, k: Sized, v: Sized, heads: Heads, repeats: bool) -> Sized:
    """Flash or memory-efficient: inputs, output and a number a row of scores are kept."""
    needs = [given.node is not None for given in (q, k, v)]
    sizes = [q.numel, k.numel, v.numel]
    width = q.width
    out = tape.new(heads.numel, width, "attention")
    sums = tape.new(heads.rows * heads.heads * heads.tokens, 4, "attention")

    def run(saved: Sequence[Sized], grad: Sized) -> Sequence[Sized | None]:
        # The memory-efficient kernel sums grad * out first, and makes gradients of repeated keys and values.
        wide = [tape.new(heads.numel, width, "attention") for _ in range(3)]
        found = [tape.new(size, width) if need else None for size, need in zip(sizes, needs, strict=True)]
        del wide
        return found

    return tape.result(out, [q, k, v], [q, k, v, out, sums], run)


def _math(tape: Tape, q: Sized, k: Sized, v: Sized, heads: Heads, repeats: bool) -> Sized:
    """torch's math kernel: half precision is computed in fp32; several rows are copied so that one bmm takes them."""
    width, copies = q.width, heads.rows > 1
    part = "attention"

    def wide(given: Sized) -> Sized:
        return given.view() if width == 4 else tape.like(given, 4, part)

    query, key, value = wide(q), wide(k), wide(v)
    scaled = tape.like(query, 4, part)
    mask = tape.new(heads.tokens**2 * (heads.rows if heads.masked else 1), 4, part) if heads.causal else None
    if repeats:
        key, value = tape.new(heads.numel, 4, part), tape.new(heads.numel, 4, part)
    keys = tape.like(key, 4, part)
    if copies:
        kept_q, kept_k = tape.like(scaled, 4, part), tape.like(keys, 4, part)
    else:
        kept_q, kept_k = scaled, keys
    scores = tape.new(heads.scores, 4, part)
    if not tape.keeps:  # the copies end with the product
        kept_q = kept_k = query
    del keys
    # _safe_softmax: the softmax, and where scores are -inf, to find rows of -inf alone.
    kept, is_out = tape.like(scores, 4, part), tape.like(scores, 1, part)
    del scores, is_out
    kept_v = tape.like(value, 4, part) if copies else value
    out = tape.new(heads.numel, 4, part)
    if width != 4:
        out = tape.like(out, width, part)
        low = tape.like(kept, width, part)  # the second result, which nobody takes
        del low
    del query, key, value, scaled, mask
    needs = [given.node is not None for given in (q, k, v)]
    sizes = [q.numel, k.numel, v.numel]

    def run(saved: Sequence[Sized], grad: Sized) -> Sequence[Sized | None]:
        high = grad.move() if width == 4 else tape.like(grad, 4, part)
        if copies:
            high = tape.like(high, 4, part)
        back_v = tape.like(high, 4, part)
        back = tape.new(heads.scores, 4, part)
        back_scores = tape.like(back, 4, part)
        del back
        saved[2].drop()
        back_q, back_k = tape.like(high, 4, part), tape.like(high, 4, part)
        del back_scores, high
        saved[0].drop()
        saved[1].drop()
        found = []
        for size, need, wide_grad in zip(sizes, needs, (back_q, back_k, back_v), strict=True):
            found.append(tape.new(size, width) if need else None)
            wide_grad.drop()
        return found

    joined = tape.like(out, width)  # transpose(1, 2).contiguous()
    return tape.result(joined, [q, k, v], [kept_q, kept_k, kept, kept_v], run)


def rotated(tape: Tape, x: Sized, width: int) -> Sized:
    """Rotary position embedding: x * cos + rotate_half(x) * sin; keeps nothing of x. Cos and sin are of `width`."""

    def apply(given: Sized, size: int) -> Sized:
        first = tape.like(given, size)
        half = tape.new(given.numel // 2, given.width)
        turned = tape.like(given)
        del half
        second = tape.like(given, size)
        del turned
        out = tape.like(given, size)
        del first, second
        return out

    before = x.width

    def run(saved: Sequence[Sized], grad: Sized) -> Sequence[Sized | None]:
        return [apply(grad, before)]

    return tape.result(apply(x, max(width, x.width)), [x], [], run)


def attention_by_frames(tape: Tape, q: Sized, k: Sized, v: Sized, heads: Heads, chunk: int, how: Compute) -> Sized:
    """models/attention_by_frames.py: some rows at a time, each group computed again in the backward pass."""
    groups = [min(chunk, heads.rows - first) for first in range(0, heads.rows, chunk)]
    row = heads.numel // heads.rows

    def attend(rows: int, inputs: Sequence[Sized]) -> Sized:
        query, key, value = inputs
        return attention(tape, query, key, value, replace(heads, rows=rows), how)

    def piece(given: Sized, rows: int, leaf: Leaf | None = None) -> Sized:
        return Sized(row * rows, given.width, given.memory, leaf)

    edges = [given.node for given in (q, k, v)]
    records, tape.records = tape.records, False
    pieces = [attend(rows, [piece(given, rows) for given in (q, k, v)]) for rows in groups]
    tape.records = records
    out = tape.new(heads.numel, pieces[0].width)
    del pieces

    def run(saved: Sequence[Sized], grad: Sized) -> Sequence[Sized | None]:
        held: list[list[Sized]] = [[], [], []]
        for rows in groups:
            leaves = [Leaf(lambda found, kept=kept: kept.append(found.move())) for kept in held]  # type: ignore[misc]
            inputs = [
                piece(given, rows, leaf if edge else None)
                for given, leaf, edge in zip(saved, leaves, edges, strict=True)
            ]
            again = attend(rows, inputs)
            node = again.node
            again.drop()
            assert node is not None
            tape.backward(node, piece(grad, rows))
        found = []
        for kept, edge in zip(held, edges, strict=True):  # split's backward joins the groups
            found.append(tape.new(heads.numel, grad.width) if edge else None)
            kept.clear()
        return found

    return tape.result(out, [q, k, v], [q, k, v], run)
