"""compare: two evaluations of the same clips -> paired differences, and whether they tell the models apart."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace


def _parser(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("a", type=Path, help="Folder that evaluate wrote.")
    add("b", type=Path, help="Another one, against the same truth.")
    add("--out", type=Path | None, help="Folder for comparison.json and comparison.csv; unset: the first one.")
    add("--num_draws", type=int, default=2000, help="Resamples of the bootstrap, and flips of the sign test.")
    add("--seed", type=int, default=0, help="Seed of both.")


def _compare(options: Namespace) -> int:
    from vlm_crash.evaluation.compare import compare
    from vlm_crash.evaluation.comparison_files import format_comparison, write_comparison
    from vlm_crash.evaluation.folder import EvaluationFolder

    comparison = compare(options.a, options.b, options.num_draws, options.seed)
    out = options.a if options.out is None else options.out
    write_comparison(comparison, out)
    print(format_comparison(comparison, EvaluationFolder.read(options.a).titles))
    print(f"{out / 'comparison.json'} and comparison.csv hold all of it")
    return 0


COMMANDS = {"compare": (_parser, _compare)}
