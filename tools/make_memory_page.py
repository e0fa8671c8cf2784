"""Write docs/old-gpus.md: which model fits how many cards of 24 GB, by the arithmetic of `plan`.

Enters: configs/titan.yaml. Leaves: docs/old-gpus.md; with --check nothing is written, and the exit code is 1 where the
page says something else than the plan.

    .venv/bin/python tools/make_memory_page.py [--check]
"""

import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vlm_crash.cli.plan_configs import read_config
from vlm_crash.cli.plan_settings import read_setting
from vlm_crash.parallel.memory_plan import LORA_TARGETS, Card, Plan
from vlm_crash.parallel.memory_shapes import NAMED, Setting

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "old-gpus.md"
TITAN = ROOT / "configs" / "titan.yaml"
SIZES, GPUS, CARD = ("1B", "2B", "4B", "8B"), (1, 2, 4, 8), Card()

HEAD = """\
# Memory on old GPUs

Made by `tools/make_memory_page.py` with the arithmetic of `plan`; nothing here was run on such a card. What holds the
arithmetic to what torch does: [below](#how-far-it-can-be-trusted).

```
python -m vlm_crash plan --config titan.yaml --model.path MODEL_FOLDER --gpus 8 --gpu_memory 23.6
```

says in a second or two how much of each GPU a run of `fit` needs, by part and by moment of a step, and whether that
fits (exit code 0) or not (1). If not, it lists what it would fit with, the fastest first, each with its peak: what
costs time alone, fewer frames, a frozen vision tower, adapters, `cpu_offload`; for that it says what a machine needs of
memory, and what this one has. Of the model it reads config.json alone; a size (`--model.path 8B`) will do. The options
of `fit` that memory depends on can be given, too; it leaves out what `--model.lora.dropout` and `--model.fp32_modules`
add.

A TITAN RTX of 24 GB has 23.6 GiB, of which 1.2 are set aside for the CUDA context, NCCL's buffers and gaps between
blocks (`--gpu_memory`, `--reserve`).
"""
WHAT_FITS = """
GiB at the peak of one GPU, **bold** where it fits 23.6, with the settings of titan.yaml: {settings}. The models are
InternVL2.5's sizes, frames of 448 pixels merged to 16 tokens each, as video checkpoints do.
"""
TITAN_ITSELF = """
titan.yaml itself is 8B with {frames} frames on 8 GPUs: {peak:.2f} GiB, {left:.2f} are left. By part: {parts}; the
worst moment: {moment}.
"""
OFFLOADED = "With AdamW on the CPU (`--trainer.strategy.cpu_offload true`):\n"
PLAIN = "\nFrames that are not merged, 256 tokens each:\n"
ONE_CARD = """
One card with LoRA: rank 16 on attention and MLP of the language model, the projector trained whole, weights held in
fp16, 16-mixed without FSDPStrategy:

| model | frames | 1 GPU |
|---|---|---|"""
MIDDLE = """\
## Where the memory goes

| part | bytes | comes down with |
|---|---|---|
| parameters, AdamW, gradients | 16 a weight, shared out | more GPUs, `zero3`, `cpu_offload`, `--model.freeze`, LoRA |
| gathered | 2 a weight of a layer or two | `zero3` (zero2: of the whole model until the backward pass) |
| gradients on their way | 4 a weight of a layer, and of the one before | `reduce_dtype float16`: half |
| activations | a state a layer, or all that it makes | `activation_checkpointing`, fewer frames, one clip a batch |
| attention of frames | 12 x heads x tokens² a frame at hand | `--model.vision_chunk` |
| attention of the sequence | 12 x heads x tokens² | fewer frames, or merged tokens ([hico.md](hico.md)) |
| logits | 12 x vocabulary a token of the answer | nothing: they are made where labels are, alone |

Embedding and head are layers of vocabulary x width each; the embedding's weights and gradient stay, once the backward
pass has come to them, until it ends.
With `accumulate_grad_batches`, gradients of the batches before are there all through forward and backward pass.
Without, the plan counts those of the step before in the forward pass, as stock Lightning keeps them; `fit` drops them
before it.
"""
FOOT = """\
## What to set

- Several cards: [titan.yaml](../configs/titan.yaml) as it is. Give `--data.num_frames` what the tables allow, and ask
  `plan` about your model.
- It does not fit by little: fewer frames, `--model.freeze [vision]`; `--model.vision_chunk 2` where the peak is in
  vision.
- It does not fit by far: `--trainer.strategy.cpu_offload true`. A step then waits for the CPU's AdamW, and the machine
  needs 16 bytes a weight of memory, and 4 more at the end (`plan` says how much).
- One card: a model of 1 billion as it is; larger ones with LoRA.
- A model whose frames have 256 tokens: 8 frames, or merge them (`convert --hico on`) and train that.

## How far it can be trusted

`tests/parallel/test_memory_plan.py` holds the plan to 5 % of the peak that a training step really has: models of 1 to
66 million weights on a CPU in fp32 (activations kept or computed again, chunks, frozen towers, two clips, merged
tokens, large vocabularies), and one of eight processes in fp16 by torch's FSDPMemTracker (zero3, zero2, none, hybrid).
`tools/bench.py plan` does the latter for the models of 1 and 8 billion: 0.99 to 1.03 of the tracker
([performance.md](performance.md#the-plan-and-torchs-tracker)). Not in it: what a kernel needs for itself, the caching
allocator's rounding, and validation's answers (a cache of keys and values, no gradients). On one H200 the plan was 0.92
to 1.00 of what the allocator gave, LoRA of 8 billion among it
([performance.md](performance.md#the-plan-and-a-real-card)); it is low by 8 % where attention's matrices are large.
`--data.batch_size` above 1 is planned with padding. A clip is taken to have 900 tokens of text, 300 of them the answer,
and 8 for the line of each frame (`--text_tokens`, `--label_tokens`).
"""


def base() -> Setting:
    """titan.yaml's settings."""
    return read_setting(read_config(TITAN), 8, None, None).setting


def shown(size: str, setting: Setting) -> str:
    """The peak; bold where it fits."""
    plan = Plan(NAMED[size], setting, CARD)
    return f"**{plan.peak_gib:.1f}**" if plan.fits else f"{plan.peak_gib:.1f}"


Change = Callable[[Setting], Setting]


def table(tail: str, frames: Sequence[int], change: Change = lambda found: found) -> Iterator[str]:
    gpus = [f"{n} GPU{'s' if n > 1 else ''}" for n in GPUS]
    yield f"| model | frames | tokens | {' | '.join(gpus)} |"
    yield "|---" * (3 + len(GPUS)) + "|"
    for size in SIZES:
        for num_frames in frames:
            settings = [change(replace(base(), num_frames=num_frames, sharers=n)) for n in GPUS]
            cells = [shown(size + tail, setting) for setting in settings]
            tokens = settings[0].num_tokens(NAMED[size + tail])
            yield f"| {size} | {num_frames} | {tokens:,} | {' | '.join(cells)} |"


def changed(**changes: Any) -> Change:
    return lambda found: replace(found, **changes)


def page() -> str:
    """The whole page."""
    setting = base()
    titan = Plan(NAMED["8B"], setting, CARD)
    adapters = changed(
        lora_rank=16, lora_targets=LORA_TARGETS, lora_towers=frozenset({"language"}), base_width=2, word="plain"
    )
    one_card = [
        f"| {size} | {frames} | {shown(size, adapters(replace(setting, num_frames=frames, sharers=1)))} |"
        for size in SIZES
        for frames in (32, 64)
    ]
    parts = ", ".join(f"{part} {size:.2f}" for part, size in titan.parts.items())
    lines = [
        HEAD,
        "## What fits",
        wrapped(WHAT_FITS.format(settings=words(setting))),
        *table("", (32, 64)),
        wrapped(
            TITAN_ITSELF.format(
                frames=setting.num_frames,
                peak=titan.peak_gib,
                left=titan.left_gib,
                parts=parts,
                moment=titan.peak_moment,
            )
        ),
        OFFLOADED,
        *table("", (32, 64), changed(cpu_offload=True)),
        PLAIN,
        *table("-plain", (8, 16, 32)),
        ONE_CARD,
        *one_card,
        "",
        MIDDLE,
        FOOT.rstrip("\n"),
    ]
    return "\n".join(lines) + "\n"


def wrapped(text: str) -> str:
    """A paragraph with lines of 118 characters, and blank ones around it."""
    return f"\n{textwrap.fill(' '.join(text.split()), 118)}\n"


def words(setting: Setting) -> str:
    """The settings that the tables share."""
    reduced = {2: "fp16", 4: "fp32"}[setting.reduce_width]
    return (
        f"{setting.word}, 16-mixed, gradients summed in {reduced}, {setting.kernel} attention, {setting.vision_chunk} "
        f"frames at a time in the vision tower's, activations of {' and '.join(sorted(setting.checkpointed))} computed "
        f"again, {setting.batch_size} clip a batch, {setting.accumulate} batches a step"
    )


def main(arguments: list[str]) -> int:
    text = page()
    if "--check" in arguments:
        if not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
            print(f"{PAGE} is not what the plan says; run tools/make_memory_page.py")
            return 1
        return 0
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
