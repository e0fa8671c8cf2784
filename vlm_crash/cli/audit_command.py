"""audit: a prepared dataset before training: leaks, shortcuts, labels, rows -> audit.json and audit.html."""

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from vlm_crash.cli.option_values import check_out_folder

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LOGS = 5.0


def _parser(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("dataset", type=Path, help="A dataset that prepare wrote.")
    add("--out", type=Path, required=True, help="Folder for audit.json, audit.html and the fingerprints of the clips.")
    add("--schema", type=Path | None, help="YAML with events and fields; unset: the crash and near-miss form.")
    add(
        "--csvs",
        type=dict[str, Path],
        default={},
        help="Annotation CSVs by event; unset: where they lay when the dataset was prepared.",
    )
    add(
        "--group_column",
        type=str | None,
        help="CSV column whose equal values must stand in one split; unset: the one of the splits, if any.",
    )
    add("--seed", type=int, default=0, help="Seed of the folds by which shortcuts are looked for.")
    add("--num_workers", type=int | None, help="Clips read at the same time; unset: one for each CPU core.")
    add(
        "--clip_timeout_s",
        type=float | None,
        default=120.0,  # guarded.CLIP_TIMEOUT_S, whose module loads the decoders
        help="Most seconds to read a clip; one that takes longer is named, and its copies not found (0: no limit).",
    )
    add("--strict", type=bool, default=False, help="Exit code 1 for a warning, too, such as a shortcut.")


def _audit(options: Namespace) -> int:
    from vlm_crash.data.audit import audit
    from vlm_crash.data.audit_copies import default_workers
    from vlm_crash.data.files import write_files
    from vlm_crash.evaluation.audit_page import write_audit_page
    from vlm_crash.schema.fields import load_schema

    check_out_folder(options.out)
    with _Progress() as progress:
        report = audit(
            options.dataset,
            load_schema(options.schema),
            options.out,
            options.csvs,
            options.group_column,
            seed=options.seed,
            num_workers=default_workers() if options.num_workers is None else options.num_workers,
            clip_timeout_s=options.clip_timeout_s,
            progress=progress,
        )
    write_files({options.out / "audit.json": json.dumps(report.to_json(), ensure_ascii=False, indent=1) + "\n"})
    write_audit_page(report, options.out / "audit.html", options.clip_timeout_s)
    print(report)
    for pair in report.leaks:
        split_of = report.split_of
        clips = [f"{one.path} ({split_of[one.id]})" for one in (pair.first, pair.second)]
        print(f"  {pair.kind}: {clips[0]} = {clips[1]}")
    print(f"open {options.out / 'audit.html'}")
    is_warned = any(finding.severity == "warning" for finding in report.findings)
    return 1 if report.is_leak or (options.strict and is_warned) else 0


class _Progress:
    """A bar on a terminal, a line every few seconds in a log."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._logged = time.monotonic()

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, done: int, total: int) -> None:
        if sys.stderr.isatty():
            if self._bar is None:
                from tqdm import tqdm

                self._bar = tqdm(total=total, initial=done - 1, unit="clip")
            self._bar.update(1)
        elif time.monotonic() - self._logged > _SECONDS_BETWEEN_LOGS or done == total:
            self._logged = time.monotonic()
            log.info("looked at %d of %d clips", done, total)


COMMANDS = {"audit": (_parser, _audit)}
