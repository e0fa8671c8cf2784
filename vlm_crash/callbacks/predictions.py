"""Predictions onto disk, batch by batch, and going on where a run was stopped.

Enters: the predictions of each batch, and what an earlier run of the same command left. Leaves: predictions.jsonl,
run.json, the *_results.json of the old scripts' form, and Parquet where it is asked for. Invariants: a prediction is
on disk before the next batch begins; the files hold whole lines only, all of one run id; a clip that has its line is
not done again; all processes hear of the same clips that are left.
"""

import json
import logging
import os
from collections import Counter
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.utilities.exceptions import SIGTERMException

from vlm_crash.callbacks.folder_lock import FolderLock
from vlm_crash.callbacks.legacy_results import results_files, write_legacy_results
from vlm_crash.callbacks.monitoring import decoded
from vlm_crash.callbacks.run_record import describe_run, differences, now, read_run
from vlm_crash.callbacks.scan_files import clear_scan, refuse_scan
from vlm_crash.callbacks.whole_lines import append_whole, cannot_write
from vlm_crash.data import parquet
from vlm_crash.data.clip_store import keys_of
from vlm_crash.data.files import write_files
from vlm_crash.data.prediction_lines import WHOLE, PredictionLines, part_name, prediction_files
from vlm_crash.schema.records import VideoSample

log = logging.getLogger(__name__)

FORMATS = ("jsonl", "parquet")
#: Held by the run that writes into a folder; the system frees it however the run ends.
OTHERWISE = "set --output_dir to another folder, or --overwrite true to replace them"


class PredictionWriter(Callback):
    """Writes each batch's predictions as it ends, and leaves out the clips that have theirs.

    Args:
        output_dir: folder for predictions.jsonl, run.json and the *_results.json of the old scripts' form.
        overwrite: replace predictions that are already there.
        retry_failed: do the clips again whose line says failed.
        predictions_format: jsonl, or parquet: predictions-00000.parquet ... as well.
    """

    def __init__(
        self,
        output_dir: Path,
        overwrite: bool = False,
        retry_failed: bool = False,
        predictions_format: str = "jsonl",
    ) -> None:
        if predictions_format not in FORMATS:
            raise ValueError(
                f"predictions_format={predictions_format!r} is not one of {list(FORMATS)}; "
                "set --predictions_format to one of them"
            )
        if predictions_format == "parquet":
            parquet.pyarrow()  # missing: told now, not after all clips
        self.output_dir = Path(output_dir)
        self.overwrite, self.retry_failed, self.predictions_format = overwrite, retry_failed, predictions_format
        self._file: FileIO | None = None
        self._lock = FolderLock(self.output_dir)
        self._counts: Counter[str] = Counter()
        self._run: dict[str, Any] = {}
        self._events: tuple[str, ...] = ()
        self._keys = np.zeros(0)
        self._lines: PredictionLines | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        # Asked when the loader is made: model and weights are in place then, and nothing is written yet.
        datamodule.choose_left = lambda samples: self._left(trainer, pl_module, samples)
        self._parent = os.getppid()

    # ------------------------------------------------------------------- before

    def _left(self, trainer: Trainer, pl_module: LightningModule, samples: Sequence[VideoSample]) -> np.ndarray:
        """Indices of the clips that are left, the same on all processes: the first one looks."""
        found: tuple[str, str, Any] = ("", "", None)
        if trainer.is_global_zero:
            try:
                found = ("", *self._look(trainer, pl_module, samples))
            except (ValueError, OSError) as error:
                if trainer.world_size == 1:
                    raise
                found = (str(error), "", None)
        message, run_id, left = trainer.strategy.broadcast(found)
        if message:
            raise ValueError(message)
        pl_module.provenance = run_id  # type: ignore[assignment]
        return left

    def _look(
        self, trainer: Trainer, pl_module: LightningModule, samples: Sequence[VideoSample]
    ) -> tuple[str, np.ndarray]:
        """The run id, and the clips that are left; finishes the folder where none is."""
        if not self.overwrite:
            refuse_scan(self.output_dir)
        try:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            self._lock.take()
        except OSError as error:
            raise cannot_write(self.output_dir, error) from error
        self._run = describe_run(trainer, pl_module)
        self._events = pl_module.schema.event_names  # type: ignore[union-attr, assignment]
        self._keys = keys_of(samples)
        everything = np.arange(len(samples))
        if self.overwrite:
            return self._run["run_id"], everything
        self._lines = PredictionLines(self.output_dir)
        if len(self._lines):
            self._check_same_run(self._lines)
            self._old_run()  # where it is broken all processes hear of it now
        left = everything[~np.isin(self._keys, self._lines.done(self.retry_failed))]
        num_done = len(everything) - len(left)
        if num_done:
            log.info("%s: %d of %d clips are answered already", self.output_dir, num_done, len(everything))
        if not len(left):
            self._nothing_left(self._lines)
        return self._run["run_id"], left

    def _check_same_run(self, lines: PredictionLines) -> None:
        """ValueError where lines that are there are of another run, or of other clips."""
        others = sorted(run for run in lines.runs if run != self._run["run_id"])
        if others:
            try:
                old = json.loads((self.output_dir / "run.json").read_text(encoding="utf-8"))
            except (OSError, ValueError):
                old = {}
            what = differences(old, self._run) if old.get("run_id") in others else []
            raise ValueError(
                f"{self.output_dir} holds predictions of another run ({', '.join(others)}; now "
                f"{self._run['run_id']}), and they are not mixed; what differs, old -> new: "
                f"{'; '.join(what) or 'its run.json does not say'}. Give what the old run was given, {OTHERWISE}"
            )
        strangers = lines.of_others(self._keys)
        if strangers == len(lines):
            raise ValueError(
                f"{self.output_dir} holds predictions already, of {strangers} other clips, none of which is asked for "
                f"now; {OTHERWISE}"
            )
        if strangers:
            log.warning("%s: %d lines of clips that are not asked for now are kept", self.output_dir, strangers)

    def _nothing_left(self, lines: PredictionLines) -> None:
        """A run may have been killed between its last clip and its last file."""
        finished = self._old_run().get("finished")
        if lines.halves or lines.files != [self.output_dir / WHOLE] or finished != self._finished():
            self._finish()
        log.info("%s: nothing is left to do (%d clips)", self.output_dir, len(self._keys))
        if lines.is_failed.any():
            log.info("%d of the lines say failed; --retry_failed true does them again", lines.is_failed.sum())
        self._lock.free()

    def _old_run(self) -> dict[str, Any]:
        remedy = f"remove it (the answers know which run they are of), {OTHERWISE}"
        return read_run(self.output_dir / "run.json", remedy) or {}

    def _finished(self) -> dict[str, Any]:
        """What tells that the files made at the end are made."""
        return {"format": self.predictions_format, "bytes": (self.output_dir / WHOLE).stat().st_size}

    # ------------------------------------------------------------------- within

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        name = WHOLE if trainer.world_size == 1 else part_name(trainer.global_rank)
        path = self.output_dir / name
        try:
            if trainer.is_global_zero:
                self._prepare_folder()
            trainer.strategy.barrier("predictions")
            self._file = FileIO(path, "a")
        except OSError as error:
            raise error if error.filename else cannot_write(path, error) from error
        self._counts.clear()

    def _prepare_folder(self) -> None:
        """No half lines, no parts, no failed lines of clips that are done again; run.json says which run it is."""
        run = self._run
        if self._lines is None:
            old = (*results_files(self.output_dir, self._events), *parquet.own_shards(self.output_dir))
            for path in (*prediction_files(self.output_dir), *old):
                path.unlink(missing_ok=True)
        elif len(self._lines):
            before = self._old_run()
            run |= {"started": before.get("started", run["started"]), "resumed": [*before.get("resumed", []), now()]}
        if self._lines is not None:
            if self._lines.files[1:] or self.retry_failed:
                self._lines.merge(self._keys, drop_failed=self.retry_failed)
            else:
                self._lines.cut()
        self._lines = None
        if self.overwrite:
            clear_scan(self.output_dir)
        write_files({self.output_dir / "run.json": _json(run)})

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx == 0 and batch.samples and trainer.is_global_zero:
            log.info("first prompt:\n%s", decoded(pl_module, batch))

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        lines = [json.dumps(prediction.to_json_dict(), ensure_ascii=False) for prediction in outputs]
        # A surrogate (a part of a name that is not UTF-8) becomes \udcff, which is valid JSON.
        assert self._file is not None
        append_whole(self._file, "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace"))
        for prediction in outputs:
            self._counts[prediction.status] += 1
            if prediction.status == "failed":
                log.warning("%s failed: %s", prediction.video, prediction.error)
        log.info("%d of %d batches predicted", batch_idx + 1, trainer.num_predict_batches[dataloader_idx])
        if trainer.received_sigterm:  # Lightning looks at it in training only
            raise SIGTERMException
        environment = trainer._accelerator_connector.cluster_environment
        if trainer.local_rank and isinstance(environment, LightningEnvironment) and os.getppid() != self._parent:
            # Nothing else would stop it: in prediction no process waits for another before the end.
            raise RuntimeError("the process that started this one is gone; what was finished is kept")

    # -------------------------------------------------------------------- after

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()
        trainer.strategy.barrier("predictions written")
        if trainer.is_global_zero:
            self._finish()
        self._lock.free()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self._file is not None:
            self._close()
            done = sum(self._counts.values())
            log.warning(
                "stopped early: %d finished predictions are kept in %s; the same command goes on",
                done, self.output_dir,
            )  # fmt: skip
            if trainer.world_size == 1 and not isinstance(exception, OSError):
                self._finish()
        self._lock.free()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _finish(self) -> None:
        """Merge the processes' parts, in the list's order, and write the files made of them."""
        lines = PredictionLines(self.output_dir)
        lines.merge(self._keys)
        whole = self.output_dir / WHOLE
        with whole.open("rb") as file:
            statuses = write_legacy_results(file, self.output_dir, self._events)
        if self.predictions_format == "parquet":
            with whole.open("rb") as file:
                parquet.write_predictions(file, self.output_dir)
        else:
            self._drop_old_shards()
        is_all = bool(np.isin(self._keys, lines.keys).all())
        run = {**self._run, **self._old_run(), "finished": self._finished() if is_all else None}
        write_files({self.output_dir / "run.json": _json(run)})
        log.info("%d clips: %d answered, %d failed -> %s", statuses.total(), statuses["ok"], statuses["failed"], whole)

    def _drop_old_shards(self) -> None:
        """Parquet files of a run that asked for them, unless predictions.jsonl is still what they were made of."""
        shards = parquet.own_shards(self.output_dir)
        before = self._old_run().get("finished") or {}
        if shards and before.get("bytes") != self._finished()["bytes"]:
            for path in shards:
                path.unlink(missing_ok=True)
            log.warning(
                "%s: %d Parquet files of an earlier run lacked predictions and were removed; "
                "--predictions_format parquet writes them anew", self.output_dir, len(shards),
            )  # fmt: skip


def _json(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, indent=1, default=str) + "\n"
