"""triage: predictions of new clips + the calibration of an evaluation -> which answers to take, which to look at."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from vlm_crash.cli.option_values import check_out_folder


def _parser(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("predictions", type=Path, nargs="+", help="Folders that predict wrote, or their files.")
    add(
        "--calibration",
        type=Path,
        required=True,
        help="calibration.json, or the folder in which evaluate --calibrate_on wrote it.",
    )
    add("--out", type=Path, required=True, help="Folder for triage.csv (a row a clip) and triage.json.")
    add("--schema", type=Path | None, help="YAML with events and fields; unset: the crash and near-miss form.")


def _triage(options: Namespace) -> int:
    from vlm_crash.schema.fields import load_schema

    check_out_folder(options.out)
    schema = load_schema(options.schema)
    from vlm_crash.evaluation.calibration_file import Calibration
    from vlm_crash.evaluation.triage import triage, triage_text

    calibration = Calibration.read(options.calibration, schema)
    found = triage(options.predictions, calibration, options.out)
    print(triage_text(found, calibration.expected))
    print(f"{options.out / 'triage.csv'} says it of each clip")
    return 0


COMMANDS = {"triage": (_parser, _triage)}
