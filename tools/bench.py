"""Measure: speed, memory and size of what vlm_crash does, beside the plain way, in one run.

Enters: the name of a benchmark. Leaves: its tables on stdout; with --json every figure, the ratios, the machine and the
versions; with --markdown the tables in their place on a page. Exit code 1: a bar was missed.

    .venv/bin/python tools/bench.py model --json runs/bench_model.json --markdown docs/performance.md
"""

import argparse
import shlex
import sys
from pathlib import Path

from benches import (
    cache,
    card,
    check,
    clips,
    data,
    evaluate,
    grammar,
    load,
    model,
    plan,
    predict,
    report,
    roles,
    sampling,
    sentinel,
    train,
    whole,
)
from benches.common import Result, has_section, markers, write_section

BENCHES = {
    "cache": cache,
    "card": card,
    "check": check,
    "clips": clips,
    "data": data,
    "evaluate": evaluate,
    "grammar": grammar,
    "load": load,
    "model": model,
    "plan": plan,
    "predict": predict,
    "report": report,
    "roles": roles,
    "sampling": sampling,
    "sentinel": sentinel,
    "train": train,
    "whole": whole,
}

BAR_MISSED = 1


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, bench in BENCHES.items():
        command = commands.add_parser(name, help=(bench.__doc__ or "").splitlines()[0])
        command.add_argument("--json", type=Path, help="file for every figure")
        command.add_argument(
            "--markdown", type=Path, help="page with lines <!-- bench NAME [PART] --> to write between"
        )
        bench.add_options(command)
    options = parser.parse_args(arguments)
    option = getattr(BENCHES[options.name], "PARTS_OPTION", "parts")
    parts = [f"{options.name} {part}" for part in getattr(options, option, ())] or [options.name]
    for name in parts if options.markdown else ():
        if not has_section(options.markdown, name):
            begin, end = markers(name)
            parser.error(f"{options.markdown} has no lines {begin} and {end}; write them where the tables go")
    results = BENCHES[options.name].run(options)
    given = without(arguments, "--json", "--markdown")
    for result in results:
        print(result.to_markdown(given))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(Result.joined(options.name, results).to_json() + "\n", encoding="utf-8")
    for result in results if options.markdown else ():
        write_section(options.markdown, result.name, result.to_markdown(given))
    return 0 if all(bar.is_met for result in results for bar in result.bars) else BAR_MISSED


def without(arguments: list[str], *options: str) -> str:
    """A command line without options that each take one value.

    >>> without(["model", "--json", "a b", "--rounds", "3", "--markdown=x.md"], "--json", "--markdown")
    'model --rounds 3'
    """
    left = [
        word
        for before, word in zip(["", *arguments], arguments, strict=False)
        if word not in options and before not in options and word.split("=")[0] not in options
    ]
    return shlex.join(left)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
