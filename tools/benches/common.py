"""What every benchmark shares: timing side by side, the machine, and writing the result down.

Enters: functions to time. Leaves: a Result, as JSON and as a section of a Markdown page.
"""

import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import psutil

PACKAGES = ("torch", "transformers", "lightning", "numpy")
#: Processes that others kept busy before the first measurement (Unix's load of a minute).
LOAD_BEFORE = round(os.getloadavg()[0], 1)
Row = Sequence[str | float | int | None]


@dataclass(frozen=True)
class Table:
    """Figures with units: `columns` are 'name (unit)', a row has one value a column; None: not measured."""

    title: str
    what: str
    columns: Sequence[str]
    rows: Sequence[Row]


@dataclass(frozen=True)
class Bar:
    """What the figures are held against, and whether they reach it."""

    what: str
    is_met: bool


@dataclass(frozen=True)
class Result:
    """What a benchmark found.

    Args:
        name: of the benchmark, and of its part where it has some.
        tables: every figure.
        ratios: those that a bar is set for; above 1 is better than what it is compared with.
        notes: what was not measured, and why.
        option: of tools/bench.py that asks for the part.
        bars: what they are held against; where one is missed, tools/bench.py ends with 1.
    """

    name: str
    tables: Sequence[Table]
    ratios: Mapping[str, float]
    notes: Sequence[str] = field(default_factory=list)
    bars: Sequence[Bar] = field(default_factory=list)
    option: str = "parts"

    @property
    def command(self) -> str:
        """What of tools/bench.py makes it again.

        >>> Result("model memory", (), {}).command, Result("load", (), {}).command
        ('model --parts memory', 'load')
        """
        return f" --{self.option} ".join(self.name.split(" ", 1))

    @classmethod
    def joined(cls, name: str, results: Sequence["Result"]) -> "Result":
        """All parts of a benchmark as one."""
        return cls(
            name,
            [table for result in results for table in result.tables],
            {key: ratio for result in results for key, ratio in result.ratios.items()},
            [note for result in results for note in result.notes],
            [bar for result in results for bar in result.bars],
        )

    def to_json(self) -> str:
        """The whole result, with the machine and the versions."""
        return json.dumps({**asdict(self), "machine": machine(), "versions": versions()}, indent=1)

    def to_markdown(self, command: str | None = None) -> str:
        """The whole result as a section of a page.

        Args:
            command: what of tools/bench.py made it; None: what makes its like.
        """
        found, used = machine(), versions()
        lines = [
            f"Made by `python tools/bench.py {command or self.command}` on {found['cpu']}, {found['threads']} threads, "
            f"{found['memory_gib']} GiB of memory, {found['gpu'] or 'no GPU'}, beside a load of {found['load_before']} "
            f"by others; Python {used['python']}, "
            + ", ".join(f"{name} {used[name]}" for name in PACKAGES) + ".",
        ]  # fmt: skip
        for table in self.tables:
            lines += ["", f"### {table.title}", "", table.what, "", "| " + " | ".join(table.columns) + " |"]
            lines.append("|" + "---|" * len(table.columns))
            lines += ["| " + " | ".join(map(shown, row)) + " |" for row in table.rows]
        lines += ["", *(f"- `{name}`: {ratio:.2f}" for name, ratio in self.ratios.items())]
        lines += [f"- Bar, {'reached' if bar.is_met else 'NOT REACHED'}: {bar.what}" for bar in self.bars]
        lines += [f"- Not measured: {note}" for note in self.notes]
        return "\n".join(lines)


def shown(value: str | float | int | None) -> str:
    """A figure with three digits.

    >>> shown(1234567), shown(0.012345), shown(12.3456), shown(None), shown("fp32")
    ('1,234,567', '0.0123', '12.3', '', 'fp32')
    """
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def write_section(page: Path, name: str, text: str) -> None:
    """Put a text between the page's lines `<!-- bench NAME -->` and `<!-- end of bench NAME -->`."""
    begin, end = markers(name)
    head, rest = page.read_text(encoding="utf-8").split(begin, 1)
    page.write_text(f"{head}{begin}\n{text}\n{end}{rest.split(end, 1)[1]}", encoding="utf-8")


def has_section(page: Path, name: str) -> bool:
    """Whether the page has the lines that write_section writes between."""
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    begin, end = markers(name)
    return 0 <= text.find(begin) < text.find(end)


def markers(name: str) -> tuple[str, str]:
    """First and last line of a benchmark's section."""
    return f"<!-- bench {name} -->", f"<!-- end of bench {name} -->"


def side_by_side(functions: Sequence[Callable[[], object]], rounds: int, limit_s: float) -> tuple[list[float], int]:
    """Median seconds of each function, and the number of rounds: A, B, A, B, ... so that noise meets all.

    Args:
        rounds: most rounds, after one that is not counted.
        limit_s: no further round begins after these seconds; the first is counted where it took longer.
    """
    seconds: list[list[float]] = []
    start = time.perf_counter()
    while len(seconds) <= rounds:
        seconds.append([timed(function) for function in functions])
        if time.perf_counter() - start > limit_s:
            break
    counted = seconds[1:] or seconds
    return [statistics.median(column) for column in zip(*counted, strict=True)], len(counted)


def timed(function: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def machine() -> dict[str, str | float | int | None]:
    """What the figures were measured on."""
    import torch  # here, as what is measured in a process of its own may need none of it

    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.is_file() else None
    return {
        "cpu": model[1] if model else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "load_before": LOAD_BEFORE,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
    }


def versions() -> dict[str, str]:
    """Of Python and of the packages that do the work."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
