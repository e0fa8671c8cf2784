"""A plan as text, and as figures.

Enters: a Plan, the run that it is of, proposals. Leaves: lines for a terminal; a dict for JSON.
"""

from collections.abc import Sequence
from typing import Any

from vlm_crash.cli.plan_settings import PlannedRun
from vlm_crash.parallel.memory_plan import Plan, Proposal

WHAT = {
    "parameters": "weights of this GPU's share: fp32, or a LoRA base as it is held",
    "gathered": "weights to compute with, gathered or cast",
    "gradients": "of the layer at hand, buffers of their sum, and this GPU's share",
    "optimizer": "AdamW's moments",
    "activations": "kept for the backward pass, or of the layer at hand, and frames",
    "attention": "score matrices, and copies beside them",
    "logits": "at labels alone",
    "context and NCCL": "--reserve",
}


def page(plan: Plan, run: PlannedRun, found: Sequence[Proposal]) -> str:
    """What the command prints."""
    lines = [headline(plan, run), ""]
    lines += [f"  {part:<17}{size:7.2f} GiB   {WHAT[part]}" for part, size in plan.parts.items()]
    lines += [f"  {'peak':<17}{plan.peak_gib:7.2f} GiB   of {plan.card.memory_gib:g}, in: {plan.peak_moment}", ""]
    lines.append("the worst of each moment of a step:")
    lines += [f"  {moment:<19}{size:7.2f} GiB" for moment, size in plan.moments.items()]
    if plan.host_gib:
        lines += [
            "",
            f"in the machine's memory, for each GPU: {plan.host_gib:.2f} GiB (weights, gradients, AdamW's state)",
        ]
    lines += ["", *(f"note: {note}" for note in run.notes)]
    return "\n".join([*lines, *verdict(plan, found)])


def headline(plan: Plan, run: PlannedRun) -> str:
    setting = plan.setting
    billions = sum(plan.shape.parameters.values()) / 1e9
    what = [
        f"{setting.num_frames} frames, {setting.num_tokens(plan.shape):,} tokens",
        f"{setting.batch_size} clip{'s' if setting.batch_size > 1 else ''} a batch",
        run.precision,
        {"plain": "one copy", "ddp": "a copy on each GPU"}.get(setting.word, setting.word),
    ]
    gpus = f"{run.world_size} GPU{'s' if run.world_size > 1 else ''}"
    return f"{run.model} ({billions:.2f} billion weights) on {gpus} of {plan.card.memory_gib:g} GiB: {', '.join(what)}"


def verdict(plan: Plan, found: Sequence[Proposal]) -> list[str]:
    """Whether it fits; if not, what would."""
    if plan.fits:
        return [f"It fits: {plan.left_gib:.2f} GiB are left."]
    lines = [f"It does not fit: {-plan.left_gib:.2f} GiB are lacking."]
    if found:
        lines.append("What would lower the peak, cheapest first (alone; together with those above):")
        lines += [f"  {row.alone.peak_gib:7.2f} {row.plan.peak_gib:7.2f} GiB  {row.what}" for row in found]
    if found and found[-1].plan.fits:
        lines.append(f"With all of these it fits: {found[-1].plan.left_gib:.2f} GiB are left.")
    else:
        lines.append("Nothing that can be set makes it fit: take more GPUs, GPUs with more memory, or a smaller model.")
    return lines


def figures(plan: Plan, run: PlannedRun, found: Sequence[Proposal]) -> dict[str, Any]:
    """Every figure, in GiB."""
    return {
        "model": run.model,
        "parameters": plan.shape.parameters,
        "gpus": run.world_size,
        "gpu_memory_gib": plan.card.memory_gib,
        "tokens": plan.setting.num_tokens(plan.shape),
        "peak_gib": plan.peak_gib,
        "peak_moment": plan.peak_moment,
        "parts_gib": plan.parts,
        "moments_gib": plan.moments,
        "host_gib": plan.host_gib,
        "left_gib": plan.left_gib,
        "fits": plan.fits,
        "notes": list(run.notes),
        "proposals": [
            {"what": row.what, "alone_gib": row.alone.peak_gib, "peak_gib": row.plan.peak_gib, "fits": row.plan.fits}
            for row in found
        ],
    }
