"""`predict --scan`: recordings instead of clips, and when something happened in them.

Enters: what `predict` was given, and the settings of --scan. Leaves: the files of callbacks/scan.py. Must hold: the
same command goes on with a scan that was stopped.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import Trainer

from vlm_crash.callbacks.scan import ScanWriter
from vlm_crash.callbacks.scan_events import ScanSettings
from vlm_crash.data.datamodule import CrashDataModule
from vlm_crash.data.recordings import ScanPlan
from vlm_crash.lightning_module import CrashVLM
from vlm_crash.schema.fields import Schema

log = logging.getLogger(__name__)


def spelt_out(args: Sequence[str]) -> list[str]:
    """`--scan` alone is `--scan true`.

    >>> spelt_out(["--scan", "--data.clips", "a.mp4"])
    ['--scan', 'true', '--data.clips', 'a.mp4']
    """
    found: list[str] = []
    for arg, after in zip(args, [*args[1:], "--"], strict=False):
        found += [arg, "true"] if arg == "--scan" and after.startswith("-") else [arg]
    return found


def settings_of(given: Any) -> ScanSettings | None:
    """None: no scan is asked for."""
    if not given:
        return None
    return given if isinstance(given, ScanSettings) else ScanSettings()


def check(schema: Schema, trainer: Trainer, datamodule: CrashDataModule, config: Mapping[str, Any]) -> None:
    """ValueError where a scan is not possible, or `predict` was given what a scan does not do."""
    if config["predictions_format"] != "jsonl":
        raise ValueError("--scan does nothing with --predictions_format; leave it out")
    if trainer.limit_predict_batches != 1.0 or trainer.fast_dev_run:  # type: ignore[attr-defined]
        raise ValueError(
            "--scan reads recordings to their end, and a limit would end their curves early; leave out "
            "--trainer.limit_predict_batches and --trainer.fast_dev_run"
        )
    if datamodule.cache is not None:
        raise ValueError("--scan reads each recording once and keeps no frames of it; leave out --data.cache")
    if datamodule.recipe is not None and datamodule.recipe.sampling.has_window:
        raise ValueError(
            "--scan has windows of its own, and the frames are to be of another (data.frames, or the model's folder); "
            "set --data.frames.start_s 0 --data.frames.end_s .inf"
        )
    if schema.background is None:
        raise ValueError(
            f"--scan asks when something happens, and the events of {schema.source} ({', '.join(schema.event_names)}) "
            "have none for ordinary driving, so every window would be one of them; fit a model with a schema that has "
            "one (`background: true`; the shipped scan.yaml), and give it here too: --data.schema scan.yaml"
        )
    if trainer.world_size > 1:
        raise ValueError(
            f"--scan runs in one process, and this run has {trainer.world_size}; set --trainer.devices 1 (and "
            "--trainer.num_nodes 1), and give each process recordings and an --output_dir of its own"
        )
    if datamodule.tell_event:
        raise ValueError("--scan asks which event there is, and data.tell_event tells it; leave --data.tell_event off")
    if datamodule.reader not in ("auto", "pyav"):
        raise ValueError(f"--scan reads by PyAV, and --data.reader is {datamodule.reader}; leave it out")


def predictor(trainer: Trainer, writer: ScanWriter) -> Callable[..., None]:
    """What stands in the place of `trainer.predict`: the curve first, then the windows at its peaks."""
    predict = trainer.predict

    def run(model: CrashVLM, datamodule: CrashDataModule, ckpt_path: Path | None = None, **options: Any) -> None:
        try:
            scan(model, datamodule, ckpt_path, options)
        finally:
            writer.close()

    def scan(model: CrashVLM, datamodule: CrashDataModule, ckpt_path: Path | None, options: dict[str, Any]) -> None:
        start = time.perf_counter()
        predict(model, datamodule=datamodule, ckpt_path=ckpt_path, **options)
        judged = time.perf_counter()
        windows = writer.plan_answers()
        if windows:
            settings = writer.settings
            datamodule.scan = ScanPlan(settings.window_s, settings.stride_s, again=windows)
            predict(model, datamodule=datamodule, ckpt_path=ckpt_path, **options)
        events = writer.finish()
        log.info(
            "%d recordings: %d events -> %s; the curve took %.1f s, the events %.1f s",
            len(writer.recordings), len(events), writer.output_dir / "events.csv", judged - start,
            time.perf_counter() - judged,
        )  # fmt: skip

    return run
