"""doctor: what works on this machine, printed as it is found.

Parsed by argparse alone, so that it answers where other packages are broken.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from vlm_crash.doctor import Line, Needs, examine, exit_code, read_needs
from vlm_crash.doctor.lines import STATUSES


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; `doctor --help` lists the options")


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="vlm_crash doctor",
        description="What works on this machine: looked at and tried, one line each, with a remedy where there is one.",
        epilog="Exit codes: 0 what is needed works; 1 something does not that the config needs (without a config: that "
        "every run needs, GPUs that are there included); 2 wrong input.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("-c", "--config", help="Config of fit or predict, whose needs are asked for; also a name such as titan.yaml.")
    add("--model.path", dest="model", help="Model folder, where the config names none.")
    add("--output_dir", type=Path, help="Folder of the run, where the config names none.")
    add("--json", type=Path, metavar="FILE", help="Write the lines there, too, for programs.")
    return parser


def run(command: str, args: Sequence[str]) -> int:
    """Print the lines; 1 where something that is needed does not work."""
    options = build_parser().parse_args(list(args))
    if options.config is None and (options.model or options.output_dir):
        raise ValueError("--model.path and --output_dir say more of a config; give --config, too, or leave them out")
    needs = Needs() if options.config is None else read_needs(_find(options.config), options.model, options.output_dir)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    lines: list[Line] = []
    for line in examine(needs):
        print(line)
        lines.append(line)
    counts = {status: sum(line.status == status for line in lines) for status in STATUSES}
    print(", ".join(f"{count} {status}" for status, count in counts.items()))
    if options.json is not None:
        content = {"config": needs.source, "lines": [line.as_dict() for line in lines], "exit_code": exit_code(lines)}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return exit_code(lines)


def _find(name: str) -> Path:
    try:
        from vlm_crash.cli.config_files import find_config
    except ImportError:  # the parser of the other commands is broken
        path = Path(name)
        if not path.is_file():
            raise ValueError(f"there is no config {name} in the working folder; give its path") from None
        return path
    return find_config(name)
