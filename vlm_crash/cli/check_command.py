"""check: every clip of a dataset or a folder is decoded once, and clips.csv says what came of it."""

import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LOGS = 5.0


def _parser(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("target", type=Path, help="A dataset that prepare wrote, or a folder of clips.")
    add(
        "--out",
        type=Path | None,
        help="Folder for clips.csv; unset: the dataset's, or that of the clips. Runs look for it only there.",
    )
    add("--schema", type=Path | None, help="YAML with events and fields; unset: the crash and near-miss form.")
    add("--num_workers", type=int | None, help="Clips looked at at the same time; unset: one for each CPU core.")
    add(
        "--clip_timeout_s",
        type=float | None,
        default=120.0,  # guarded.CLIP_TIMEOUT_S, whose module loads the decoders
        help="Most seconds for a clip, which is decoded as a whole; raise it for recordings of hours (0: no limit).",
    )
    add(
        "--clip_memory_gib",
        type=float | None,
        default=4.0,
        help="Most memory that the decoder may take for a clip, in GiB (0: no limit).",
    )
    add("--recheck", type=bool, default=False, help="Look at the quarantined clips again, after a limit was raised.")
    add(
        "--decord",
        type=bool | None,
        help="Record what decord, with which the old scripts read, gets wrong; unset: where it is installed.",
    )
    add("--strict", type=bool, default=False, help="Exit code 1 where a clip is quarantined.")


def _check(options: Namespace) -> int:
    from vlm_crash.data.check import check
    from vlm_crash.schema.fields import load_schema
    from vlm_crash.video.preflight import Limits

    workers = options.num_workers if options.num_workers is not None else len(os.sched_getaffinity(0))
    with _Progress() as progress:
        report = check(
            options.target,
            load_schema(options.schema),
            Limits(options.clip_timeout_s, options.clip_memory_gib),
            workers,
            options.out,
            options.recheck,
            _compares(options.decord),
            progress,
        )
    print(report)
    return 1 if options.strict and report.num_quarantined else 0


def _compares(decord: bool | None) -> bool:
    """Whether decord is compared; ValueError where it is asked for and not installed."""
    from vlm_crash.video.reader import check_reader

    if decord is False:
        return False
    try:
        check_reader("decord")
    except ValueError as error:
        if decord:
            raise
        log.info("decord is not compared: %s", error)
        return False
    return True


class _Progress:
    """A bar on a terminal, a line every few seconds in a log."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._start = self._logged = time.monotonic()
        self._first: int | None = None

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, done: int, total: int, num_quarantined: int) -> None:
        if self._first is None:
            self._first = done - 1
        if sys.stderr.isatty():
            self._show(done, total, num_quarantined)
            return
        now = time.monotonic()
        if now - self._logged > _SECONDS_BETWEEN_LOGS or done == total:
            self._logged = now
            rate = 60 * (done - self._first) / max(now - self._start, 1e-3)
            log.info("looked at %d of %d clips, %d quarantined (%.0f a minute)", done, total, num_quarantined, rate)

    def _show(self, done: int, total: int, num_quarantined: int) -> None:
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=done - 1, unit="clip")
        self._bar.set_postfix(quarantined=num_quarantined, refresh=False)
        self._bar.update(1)


COMMANDS = {"check": (_parser, _check)}
