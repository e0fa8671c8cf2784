"""What is said of an optimizer step that was not finite.

Enters: what each process has found. Leaves: one event, for a line of JSON, for TensorBoard and for the log.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vlm_crash.parallel.overflow_search import Finding, Size


@dataclass(frozen=True)
class Run:
    """What an event needs to know of the run: the step counts from 0, as in TensorBoard."""

    step: int
    epoch: int
    precision: str
    loss_scale: float
    in_a_row: int
    num_batches: int


@dataclass(frozen=True)
class Report:
    """What one process has found, the clips that it was found in (of the batch, or of the whole step), and the modules
    whose stored weights are not finite."""

    process: int
    finding: Finding | None
    clips: tuple[str, ...]
    bad_weights: tuple[str, ...] = ()


def event(run: Run, reports: Sequence[Report]) -> dict[str, Any]:
    """One event of all processes: details are those of the first process that has found something."""
    found = [report for report in reports if report.finding is not None]
    if not found:
        # As the numbers of a pass may differ from those of its repetition (atomic sums on a GPU).
        finding, first = Finding("unknown", "", "a number that was finite when the step was computed again"), reports[0]
    else:
        first = found[0]
        assert first.finding is not None
        finding = first.finding
    # What came of a sum came of all.
    clips = [clip for report in reports for clip in report.clips] if finding.batch is None else list(first.clips)
    bad_weights = sorted({name for report in reports for name in report.bad_weights})
    record = {
        **asdict(run), "processes": [report.process for report in found], "process": first.process,
        **asdict(finding), "bad_weights": bad_weights, "clips": clips, "remedy": remedy(run, finding, bad_weights),
    }  # fmt: skip
    return {**record, "message": message(run, finding, record)}


def message(run: Run, finding: Finding, record: dict[str, Any]) -> str:
    """One sentence for people."""
    place = finding.module or "the code around the modules"
    where = {
        "batch": "not finite in the batch", "forward": "not finite in the forward pass",
        "backward": "gradients not finite", "reduced": "gradients not finite where they are summed",
    }.get(finding.where, "not finite")  # fmt: skip
    of = f", batch {finding.batch + 1} of {run.num_batches}" if finding.batch is not None else ""
    sizes = [
        f"{name} {shown(size)}"
        for name, size in (("given", finding.inputs), ("made", finding.outputs))
        if size is not None
    ]
    weights = "; its weights are not finite as it computes with them" if finding.has_finite_weights is False else ""
    scale = f", loss scale {run.loss_scale:g}" if run.precision.startswith("16") else ""
    processes = ", ".join(map(str, record["processes"])) or "unknown"
    return (
        f"step {run.step}: {where}: {place}, {finding.what} ({'; '.join(sizes)}{weights}){of}, process {processes}"
        f"{scale}; clips: {', '.join(record['clips']) or 'none'}; {record['remedy']}"
    ).replace(" ()", "")


def shown(size: Size) -> str:
    """A size in words."""
    largest = "no finite number" if size.largest is None else f"numbers up to {size.largest:.4g}"
    others = f" and {size.num_not_finite} that are not finite" if size.num_not_finite else ""
    return f"{largest}{others}, {size.dtype}"


def remedy(run: Run, finding: Finding, bad_weights: Sequence[str]) -> str:
    """What can be done."""
    is_half = "mixed" in run.precision
    # What leaves an island is half precision again, so it must reach to where numbers are small.
    island = finding.parent or ("" if _is_island(finding) else finding.module)
    if finding.where == "batch":
        return "the pixels themselves are not finite: look at the clips"
    if bad_weights:
        return (
            f"stored weights are not finite ({len(bad_weights)} modules): go on from a checkpoint before they became "
            "so, with lower --model.lr_*"
        )
    if finding.where == "forward" and is_half and island:
        return f"compute it in fp32: --model.fp32_modules [{island}]"
    if finding.where == "reduced" and is_half:
        return "if it lasts: --trainer.strategy.reduce_dtype float32, or fewer --trainer.accumulate_grad_batches"
    if finding.where == "backward" and run.loss_scale != 1 and is_half:
        also = f" or --model.fp32_modules [{island}]" if island else ""
        usual = "the loss scale is halved until it fits, as in the first steps of a run"
        return f"{usual}; if it lasts: lower --model.lr_*{also}"
    return "look at the clips; lower --model.lr_* or --trainer.gradient_clip_val"


def _is_island(finding: Finding) -> bool:
    """Whether a module computes in fp32 already, and only what leaves it is too large."""
    given, made = finding.inputs, finding.outputs
    return given is not None and made is not None and given.dtype == "float32" != made.dtype


def as_markdown(record: dict[str, Any]) -> str:
    """The event as a table for TensorBoard."""
    rows = "\n".join(f"| {name} | {_cell(value)} |" for name, value in record.items() if name != "message")
    return f"{record['message']}\n\n| | |\n|---|---|\n{rows}"


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return shown(Size(**value))
    return ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
