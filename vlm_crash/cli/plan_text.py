"""A plan as text, and as figures.

Enters: a Plan, the run that it is of, alternatives. Leaves: lines for a terminal; a dict for JSON.
"""

from collections.abc import Sequence
from typing import Any

from vlm_crash.cli.plan_settings import PlannedRun
from vlm_crash.parallel.memory_alternatives import Alternative
from vlm_crash.parallel.memory_plan import GIB, Plan

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


def page(
    plan: Plan, run: PlannedRun, found: Sequence[Alternative], least: Plan | None, machine_bytes: int | None
) -> str:
    """What the command prints.

    Args:
        found: with what it would fit, where it does not.
        least: where nothing helps, the lowest peak.
        machine_bytes: memory of this machine; None: it cannot be told.
    """
    lines = [headline(plan, run), ""]
    lines += [f"  {part:<17}{size:7.2f} GiB   {WHAT[part]}" for part, size in plan.parts.items()]
    lines += [f"  {'peak':<17}{plan.peak_gib:7.2f} GiB   of {plan.card.memory_gib:g}, in: {plan.peak_moment}", ""]
    lines.append("the worst of each moment of a step:")
    lines += [f"  {moment:<19}{size:7.2f} GiB" for moment, size in plan.moments.items()]
    if plan.host_gib:
        lines += ["", "in the machine's memory (weights, gradients, AdamW's state): " + host(plan, run, machine_bytes)]
    lines += ["", *(f"note: {note}" for note in run.notes)]
    return "\n".join([*lines, *verdict(plan, run, found, least, machine_bytes)])


def host(plan: Plan, run: PlannedRun, machine_bytes: int | None) -> str:
    """What cpu_offload needs of a machine, and what this one has."""
    processes = run.world_size // run.num_nodes
    needed = host_machine_gib(plan, run)
    text = (
        f"{plan.host_gib:.1f} GiB a process; {needed:.1f} GiB for the {processes} of a machine, with the model folder "
        "that the first one gathers at the end"
    )
    if machine_bytes is None:
        return text
    has = machine_bytes / GIB
    return f"{text}; this machine has {has:.1f} GiB" + (", which is too little" if has < needed else "")


def host_machine_gib(plan: Plan, run: PlannedRun) -> float:
    """GiB of memory of the machine whose first process gathers the model folder; without cpu_offload 0."""
    return plan.host_gib and plan.host_gib * (run.world_size // run.num_nodes) + plan.folder_gib


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


def verdict(
    plan: Plan, run: PlannedRun, found: Sequence[Alternative], least: Plan | None, machine_bytes: int | None
) -> list[str]:
    """Whether it fits; if not, what would."""
    if plan.fits:
        return [f"It fits: {plan.left_gib:.2f} GiB are left."]
    lines = [f"It does not fit: {-plan.left_gib:.2f} GiB are lacking."]
    for row in found:
        lines.append(f"  {row.plan.peak_gib:7.2f} GiB  {row.work:5.2f}   {' + '.join(named(row))}")
        if row.plan.host_gib and not plan.host_gib:
            lines.append(f"{'':23}in the machine's memory {host(row.plan, run, machine_bytes)}")
    if found:
        lines.insert(1, "Any one of these makes it fit, the fastest first (peak; multiplications a clip, now 1):")
        lines.append("Fewer frames, a frozen tower and adapters change what is learnt; the rest changes time alone.")
    if least is not None:
        lines.append(
            "Nothing that can be set makes it fit: take more GPUs, GPUs with more memory, or a smaller model. The "
            f"least that settings reach is {least.peak_gib:.2f} GiB."
        )
    return lines


def named(row: Alternative) -> list[str]:
    """The changes in words, without those that a later one of the same option replaces."""
    last = {name: change for change in row.changes for name, _ in change.sets}
    return [change.what for change in row.changes if any(last[name] is change for name, _ in change.sets)]


def figures(plan: Plan, run: PlannedRun, found: Sequence[Alternative]) -> dict[str, Any]:
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
        "host_machine_gib": host_machine_gib(plan, run),
        "alternatives": [
            {
                "changes": named(row),
                "peak_gib": row.plan.peak_gib,
                "left_gib": row.plan.left_gib,
                "work": row.work,
                "host_gib": row.plan.host_gib,
                "host_machine_gib": host_machine_gib(row.plan, run),
            }
            for row in found
        ],
    }
