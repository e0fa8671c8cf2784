"""demo, prepare, check, audit, frames, convert, export, evaluate, compare, report: thin commands around functions."""

import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ActionConfigFile, ArgumentError, ArgumentParser, Namespace

from vlm_crash.cli import (
    audit_command,
    check_command,
    checkpoint_commands,
    compare_command,
    frames_command,
    triage_command,
)
from vlm_crash.cli.arguments import HelpFormatter, explain, known_keys
from vlm_crash.cli.config_files import resolve_configs
from vlm_crash.cli.option_values import check_out_folder


def _prepare_parser(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--crash_csv", type=Path | None, help="Annotations of the crash clips.")
    add("--crash_dir", type=Path | None, help="Folder of the crash clips.")
    add("--nearmiss_csv", type=Path | None, help="Annotations of the near-miss clips.")
    add("--nearmiss_dir", type=Path | None, help="Folder of the near-miss clips.")
    add("--event_csvs", type=dict[str, Path], default={}, help="CSVs by event, for schemas of other events.")
    add("--event_dirs", type=dict[str, Path], default={}, help="Clip folders by event, for schemas of other events.")
    add("--form", type=str | None, help="A dataset of others: ccd, nexar, dota or folders (docs/datasets.md).")
    add("--annotations", type=Path | None, help="Its annotation file (folders: none).")
    add("--clips", type=Path | None, help="Folder of its clips; of folders, the one that holds a folder per event.")
    add("--event_of", type=dict[str, str], default={}, help="By label of it the event that it is, or none (left out).")
    add("--out", type=Path, required=True, help="Folder for the dataset.")
    add("--schema", type=Path | None, help="YAML with events and fields; unset: the crash and near-miss form.")
    add(
        "--fractions",
        type=tuple[float, float, float] | None,
        help="Shares of train, val, test; unset: those of the splits in the folder, else 0.7, 0.1, 0.2.",
    )
    add("--seed", type=int | None, help="Seed of the splits; unset: that of the splits in the folder, else 0.")
    add(
        "--group_column",
        type=str | None,
        help="CSV column whose equal values stay in one split; unset: that of the splits in the folder, else none "
        "(equal clips always do).",
    )
    add(
        "--corrections",
        type=Path | None,
        help="CSV of labels to change, from the report's page; the annotation CSVs stay as they are.",
    )
    add("--prompt", type=Literal["full", "short"], default="full", help="Question written into the JSONL's human turn.")
    add(
        "--clip_timeout_s",
        type=float | None,
        default=120.0,  # guarded.CLIP_TIMEOUT_S, whose module loads the decoders
        help="Most seconds to look at a clip; one that takes longer is a problem, and left out (null or 0: no limit).",
    )


def _prepare(options: Namespace) -> int:
    from vlm_crash.data.conversation import question
    from vlm_crash.data.prepare import prepare
    from vlm_crash.schema.fields import load_schema

    schema = load_schema(options.schema)
    adapted = _adapted(options, schema)
    report = prepare(
        _sources(options) if adapted is None else adapted.sources,
        options.out,
        schema,
        options.seed,
        options.fractions,
        options.group_column,
        question=lambda event: question(schema, options.prompt),
        clip_timeout_s=options.clip_timeout_s,
        adapted=adapted,
        corrections=options.corrections,
    )
    print(report)
    return 0


def _adapted(options: Namespace, schema: Any) -> Any:
    """The rows of a dataset of another form; None where none is given."""
    from vlm_crash.data.adapters import adapt

    names = ("crash_csv", "crash_dir", "nearmiss_csv", "nearmiss_dir", "event_csvs", "event_dirs", "group_column")
    if options.form is None:
        if given := [f"--{name}" for name in ("annotations", "clips", "event_of") if options[name]]:
            raise ValueError(f"{', '.join(given)} say nothing without --form; give it, or leave them out")
        return None
    if given := [f"--{name}" for name in names if options[name]]:
        raise ValueError(f"--form {options.form} and {', '.join(given)} are both given; leave one of them out")
    if options.clips is None:
        raise ValueError(f"--form {options.form} needs --clips, the folder of the clips")
    return adapt(options.form, options.annotations, options.clips, schema, options.event_of)


def _sources(options: Namespace) -> dict[str, tuple[Path, Path]]:
    """CSV and clip folder of each event that was given."""
    csvs = {"crash": options.crash_csv, "nearmiss": options.nearmiss_csv, **options.event_csvs}
    dirs = {"crash": options.crash_dir, "nearmiss": options.nearmiss_dir, **options.event_dirs}
    csvs, dirs = ({event: path for event, path in given.items() if path} for given in (csvs, dirs))
    if not csvs and not dirs:
        raise ValueError(
            "there is nothing to prepare; give --crash_csv and --crash_dir, --nearmiss_csv and --nearmiss_dir"
        )
    for event in sorted(csvs.keys() ^ dirs.keys()):
        have, lack = (
            (f"--{event}_{kind}" if event in ("crash", "nearmiss") else f"--event_{kind}s.{event}")
            for kind in (("csv", "dir") if event in csvs else ("dir", "csv"))
        )
        raise ValueError(f"{have} is given without {lack}; give both or neither")
    return {event: (csvs[event], dirs[event]) for event in csvs}


def _evaluate_parser(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--predictions", type=Path, nargs="+", required=True, help="predictions.jsonl, old *_results.json, or folders.")
    add("--truth", type=Path, nargs="+", required=True, help="Annotation CSVs, JSONL files, or a prepared folder.")
    add("--out", type=Path, required=True, help="Folder for metrics.json and the tables.")
    add("--split", type=str | None, help="Score only this split of a prepared folder: train, val or test.")
    add("--schema", type=Path | None, help="YAML with events and fields; unset: the crash and near-miss form.")
    add("--embedder", type=str | None, default="minilm", help="minilm, a model folder, or null: no text scores.")
    add("--only_predicted", type=bool, default=False, help="Leave out clips of the truth that have no prediction.")
    add("--seed", type=int, default=0, help="Seed of the bootstrap.")
    add(
        "--calibrate_on", type=Path, nargs="+", default=[],
        help="Predictions of the same model for the val split: temperatures and thresholds are chosen on them.",
    )  # fmt: skip
    add("--wanted_accuracy", type=float, default=0.95, help="Of the answers that are accepted without a look.")
    add("--num_draws", type=int, default=2000, help="Resamples of the bootstrap, for the 95 % intervals.")
    add(
        "--group_column",
        type=str | None,
        help="Column of the truth: clips with equal cells (a trip) are drawn as one; with it or without, so are those "
        "that the dataset's splits.json keeps together.",
    )
    add("--blind", type=Path, nargs="+", default=[], help="Predictions of the same model on black frames.")
    add(
        "--annotators",
        type=Path,
        nargs="+",
        default=[],
        help="Two people's annotation CSVs (or labels.csv of the page) of the same clips: their agreement, as kappa.",
    )


def _evaluate(options: Namespace) -> int:
    from vlm_crash.evaluation.inputs import check_inputs
    from vlm_crash.evaluation.settings import EvaluationSettings
    from vlm_crash.schema.fields import load_schema

    settings = EvaluationSettings(
        embedder=options.embedder,
        split=options.split,
        only_predicted=options.only_predicted,
        seed=options.seed,
        num_draws=options.num_draws,
        group_column=options.group_column,
        blind=tuple(options.blind),
        annotators=tuple(options.annotators),
        calibrate_on=tuple(options.calibrate_on),
        wanted_accuracy=options.wanted_accuracy,
    )
    schema = load_schema(options.schema)
    check_inputs(options.predictions, options.truth, settings)
    check_out_folder(options.out)
    # From here on torch and scikit-learn are loaded.
    from vlm_crash.evaluation.consistency import consistency_line
    from vlm_crash.evaluation.evaluate import evaluate
    from vlm_crash.evaluation.tables import format_table

    metrics = evaluate(options.predictions, options.truth, options.out, schema, settings)
    print(format_table(metrics, schema))
    if line := consistency_line(metrics["consistency"]):
        print(line)
    return 0


def _report_parser(parser: ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="Folder that evaluate or predict wrote.")
    parser.add_argument("--out", type=Path | None, help="The page; unset: report.html in the folder.")
    parser.add_argument(
        "--clips", type=Path | None, help="Where the clips lie now, as <event>/<name> or <name>, if they were moved."
    )
    parser.add_argument(
        "--compare", type=Path | None, help="A second folder that evaluate wrote: the page shows the differences."
    )


def _report(options: Namespace) -> int:
    from vlm_crash.evaluation.report import report

    page = report(options.folder, options.out, options.clips, options.compare)
    print(f"open {page}")
    return 0


def _demo_parser(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/demo"), help="Folder for everything.")
    add("--num_clips", type=int, default=300, help="Clips to render.")
    add("--seed", type=int, default=0, help="Seed of the scenes and of the splits.")
    add("--from_scratch", type=bool, default=False, help="Train from random weights, not from the shipped base model.")
    add("--max_epochs", type=int | None, help="Epochs of fine-tuning; unset: what demo.yaml says.")


def _demo(options: Namespace) -> int:
    from vlm_crash.cli.demo import demo

    return demo(options)


COMMANDS: dict[str, tuple[Callable[[ArgumentParser], None], Callable[[Namespace], int]]] = {
    "prepare": (_prepare_parser, _prepare),
    **check_command.COMMANDS,
    **audit_command.COMMANDS,
    "evaluate": (_evaluate_parser, _evaluate),
    **compare_command.COMMANDS,
    **triage_command.COMMANDS,
    "report": (_report_parser, _report),
    "demo": (_demo_parser, _demo),
    **frames_command.COMMANDS,
    **checkpoint_commands.COMMANDS,
}


def build_parser(command: str) -> ArgumentParser:
    """The parser of one command."""
    from vlm_crash.cli import COMMANDS as HELP

    parser = ArgumentParser(
        prog=f"vlm_crash {command}",
        description=HELP[command][1],
        exit_on_error=False,
        allow_abbrev=False,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("-c", "--config", action=ActionConfigFile, help="YAML with these options.")
    COMMANDS[command][0](parser)
    return parser


def run(command: str, args: list[str]) -> int:
    """Run one of the plain commands."""
    parser = build_parser(command)
    try:
        options = parser.parse_args(resolve_configs(args))
    except ArgumentError as error:
        message = str(explain(error, known_keys(parser), command))
        section = re.match(r"there is no option '(model|data|trainer)\b[^;]*", message)
        if section:
            message = (
                f"{section[0]} in {command}: a config with model, data and trainer (demo.yaml, say) is for fit, "
                "validate, test or predict; leave it out"
            )
        raise ValueError(message) from error
    if isinstance(sys.stdout, io.TextIOWrapper):  # a notebook has another
        sys.stdout.reconfigure(line_buffering=True)
    return COMMANDS[command][1](options)
