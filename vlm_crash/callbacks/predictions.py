"""Predictions onto disk, batch by batch.

Enters: the predictions of each batch. Leaves: predictions.jsonl, run.json and the *_results.json of the old scripts'
form. Invariants: a prediction is on disk before the next batch begins; the files hold whole lines only.
"""

import hashlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import version
from io import FileIO
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from vlm_crash.callbacks.monitoring import decoded
from vlm_crash.data.files import write_files
from vlm_crash.parallel.whole_files import standing
from vlm_crash.schema.records import Prediction

log = logging.getLogger(__name__)

PACKAGES = ("vlm_crash", "torch", "lightning", "transformers", "torchvision", "decord", "av")


def refuse_old_predictions(output_dir: Path) -> None:
    """ValueError where a folder holds predictions already; a run that failed before its first left an empty file."""
    if any(path.stat().st_size for path in output_dir.glob("predictions*.jsonl")):
        raise ValueError(
            f"{output_dir} holds predictions already; set --output_dir to another folder, "
            "or --overwrite true to replace them"
        )


class PredictionWriter(Callback):
    """Writes each batch's predictions as it ends.

    Args:
        output_dir: folder for predictions.jsonl, run.json and the *_results.json of the old scripts' form.
        overwrite: replace predictions that are already there.
    """

    def __init__(self, output_dir: Path, overwrite: bool = False) -> None:
        self.output_dir = Path(output_dir)
        self.overwrite = overwrite
        self._file: FileIO | None = None
        self._counts: Counter[str] = Counter()

    def _part(self, trainer: Trainer) -> Path:
        name = "predictions.jsonl" if trainer.world_size == 1 else f"predictions.rank{trainer.global_rank:03d}.jsonl"
        return self.output_dir / name

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.overwrite:
            refuse_old_predictions(self.output_dir)
        trainer.strategy.barrier("predictions")
        path = self._part(trainer)
        try:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            if trainer.is_global_zero:
                for old in (*self.output_dir.glob("predictions*.jsonl"), *self.output_dir.glob("*_results.json")):
                    old.unlink()
                run = describe_run(trainer, pl_module)
                write_files({self.output_dir / "run.json": _json(run)})
                pl_module.provenance = run["run_id"]
            pl_module.provenance = trainer.strategy.broadcast(pl_module.provenance)
            self._file = FileIO(path, "w")
        except OSError as error:
            raise cannot_write(path, error) from error
        self._counts.clear()

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
        self._append("".join(f"{line}\n" for line in lines).encode(errors="backslashreplace"))
        for prediction in outputs:
            self._counts[prediction.status] += 1
            if prediction.status == "failed":
                log.warning("%s failed: %s", prediction.video, prediction.error)
        log.info("%d of %d batches predicted", batch_idx + 1, trainer.num_predict_batches[dataloader_idx])
        if trainer.received_sigterm:  # Lightning looks at it in training only
            raise SIGTERMException

    def _append(self, content: bytes) -> None:
        """All of it, or nothing: half a line is taken back."""
        assert self._file is not None
        start = self._file.tell()
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.seek(self._file.truncate(start))
            raise cannot_write(Path(os.fsdecode(self._file.name)), error) from error

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()
        trainer.strategy.barrier("predictions written")
        if trainer.is_global_zero:
            self._finish(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self._file is not None:
            self._close()
            done = sum(self._counts.values())
            log.warning("stopped early: %d finished predictions are kept in %s", done, self.output_dir)
            if trainer.world_size == 1 and not isinstance(exception, OSError):
                self._finish(pl_module)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _finish(self, pl_module: LightningModule) -> None:
        """Merge the processes' parts and write the old scripts' files."""
        parts = sorted(self.output_dir.glob("predictions.rank*.jsonl"))
        whole = self.output_dir / "predictions.jsonl"
        if parts:
            # The processes took the clips in turns, and so do their lines.
            turns = zip_longest(*(part.read_text(encoding="utf-8").splitlines() for part in parts))
            write_files({whole: "".join(f"{line}\n" for line in chain.from_iterable(turns) if line is not None)})
            for part in parts:
                part.unlink()
        with whole.open(encoding="utf-8") as file:
            predictions = [Prediction.from_json_dict(json.loads(line)) for line in file]
        schema: Any = pl_module.schema
        results = legacy_results(predictions, schema.event_names)
        write_files({self.output_dir / name: _json(rows) for name, rows in results.items()})
        failed = sum(prediction.status == "failed" for prediction in predictions)
        log.info("%d clips: %d answered, %d failed -> %s", len(predictions), len(predictions) - failed, failed, whole)


def cannot_write(path: Path, error: OSError) -> OSError:
    """The same error with the path and what to do."""
    return OSError(
        error.errno, f"cannot write ({error.strerror}); free some space or set --output_dir elsewhere", str(path)
    )


def _json(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, indent=1, default=str) + "\n"


def legacy_results(predictions: Iterable[Prediction], events: Iterable[str]) -> dict[str, list[dict[str, str]]]:
    """The old scripts' files: file name -> [{"video", "response"}].

    A clip goes into the file of its folder or CSV; where neither is known, of the predicted event; where that is
    not known either, into unknown_results.json. A failed clip has its error as its response.
    """
    files: dict[str, list[dict[str, str]]] = {f"{event}_results.json": [] for event in events}
    for prediction in predictions:
        event = prediction.source_event or prediction.event or "unknown"
        response = prediction.response if prediction.status == "ok" else f"Failed: {prediction.error}"
        files.setdefault(f"{event}_results.json", []).append({"video": prediction.video, "response": response})
    return {name: rows for name, rows in files.items() if rows}


def describe_run(trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
    """Checkpoint hash, settings, versions, sampling; `run_id` is a hash of what could change an answer."""
    datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
    recipe = datamodule.recipe
    weights = weight_files(pl_module.path, trainer.ckpt_path)  # type: ignore[arg-type]
    facts: dict[str, Any] = {
        "checkpoint": {str(path): _sha256(path) for path in weights},
        "model": {name: str(value) for name, value in pl_module.hparams.items()},
        "sampling": {
            **recipe.remembered,
            **{name: getattr(recipe, name) for name in ("image_size", "tell_event", "blank_frames")},
        },
        "precision": str(next(pl_module.parameters()).dtype),
        "schema": pl_module.schema.fingerprint,  # type: ignore[union-attr]
        "versions": {name: version(name) for name in PACKAGES},
    }
    # Where the files lie and how they would be trained does not change an answer.
    deciding = {name: facts["model"][name] for name in ("init", "attention", "decoding", "max_new_tokens", "load_in")}
    decisive = {**facts, "checkpoint": sorted(facts["checkpoint"].values()), "model": deciding}
    run_id = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]
    return {"run_id": run_id, "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **facts}


def weight_files(folder: Path, ckpt_path: str | Path | None) -> list[Path]:
    """The files that the weights come from: a model folder's, or a checkpoint, which may be a folder of shards."""
    if ckpt_path is None:
        found = [path for kind in ("*.safetensors", "pytorch_model*.bin") for path in folder.glob(kind)]
    else:
        checkpoint = standing(Path(ckpt_path))
        found = [checkpoint] if checkpoint.is_file() else list(checkpoint.iterdir())
    return sorted(path for path in found if path.is_file())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
