"""What happens beside the steps: predictions onto disk, throughput and samples into the logger, the model folder.

Enters: outputs and timings of the loops. Leaves: predictions.jsonl, run.json, *_results.json; logged numbers and
pictures; a model folder that `predict` takes. Invariant: a prediction is on disk before the next batch begins.
"""

import hashlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from vlm_crash.data.collate import Batch
from vlm_crash.models.internvl import TOWERS, tower_of
from vlm_crash.schema.fields import UNKNOWN
from vlm_crash.schema.records import Prediction
from vlm_crash.video.image_transform import IMAGENET_MEAN, IMAGENET_STD

log = logging.getLogger(__name__)

PACKAGES = ("vlm_crash", "torch", "lightning", "transformers", "torchvision", "decord", "av")


class PredictionWriter(Callback):
    """Writes each batch's predictions as it ends.

    Args:
        output_dir: folder for predictions.jsonl, run.json and the *_results.json of the old scripts' form.
        overwrite: replace predictions that are already there.
    """

    def __init__(self, output_dir: Path, overwrite: bool = False) -> None:
        self.output_dir = Path(output_dir)
        self.overwrite = overwrite
        self._file: TextIO | None = None
        self._counts: Counter[str] = Counter()

    def _part(self, trainer: Trainer) -> Path:
        name = "predictions.jsonl" if trainer.world_size == 1 else f"predictions.rank{trainer.global_rank}.jsonl"
        return self.output_dir / name

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        path = self._part(trainer)
        if any(self.output_dir.glob("predictions*.jsonl")) and not self.overwrite and trainer.is_global_zero:
            raise ValueError(
                f"{self.output_dir} holds predictions already; set --output_dir to another folder, "
                "or --overwrite true to replace them"
            )
        trainer.strategy.barrier("predictions")
        try:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            if trainer.is_global_zero:
                for old in self.output_dir.glob("predictions*.jsonl"):
                    old.unlink()
                run = describe_run(trainer, pl_module)
                write_json(self.output_dir / "run.json", run)
                pl_module.provenance = run["run_id"]
            pl_module.provenance = trainer.strategy.broadcast(pl_module.provenance)
            self._file = path.open("w", encoding="utf-8")
        except OSError as error:
            raise _cannot_write(path, error) from error

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        assert self._file is not None
        try:
            for prediction in outputs:
                self._counts[prediction.status] += 1
                if prediction.status == "failed":
                    log.warning("%s failed: %s", prediction.video, prediction.error)
                self._file.write(json.dumps(prediction.to_json_dict(), ensure_ascii=False) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
            log.info("%d of %d batches predicted", batch_idx + 1, trainer.num_predict_batches[dataloader_idx])
        except OSError as error:
            raise _cannot_write(Path(self._file.name), error) from error

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
            with whole.open("w", encoding="utf-8") as file:
                file.writelines(part.read_text(encoding="utf-8") for part in parts)
            for part in parts:
                part.unlink()
        with whole.open(encoding="utf-8") as file:
            predictions = [Prediction.from_json_dict(json.loads(line)) for line in file]
        schema: Any = pl_module.schema
        for name, rows in legacy_results(predictions, schema.event_names).items():
            write_json(self.output_dir / name, rows)
        failed = sum(prediction.status == "failed" for prediction in predictions)
        log.info("%d clips: %d answered, %d failed -> %s", len(predictions), len(predictions) - failed, failed, whole)


def _cannot_write(path: Path, error: OSError) -> OSError:
    return OSError(
        error.errno, f"cannot write ({error.strerror}); free some space or set --output_dir elsewhere", str(path)
    )


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


def write_json(path: Path, content: Any) -> None:
    """Write aside, then rename: a reader never sees half a file."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(json.dumps(content, ensure_ascii=False, indent=1, default=str) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise _cannot_write(path, error) from error


def describe_run(trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
    """Checkpoint hash, settings, versions, sampling; `run_id` is a hash of what could change an answer."""
    datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
    recipe = datamodule.recipe
    weights = sorted(Path(str(pl_module.hparams["path"])).glob("*.safetensors"))
    if trainer.ckpt_path:
        weights = [Path(trainer.ckpt_path)]
    facts: dict[str, Any] = {
        "checkpoint": {str(path): _sha256(path) for path in weights if path.is_file()},
        "model": {name: str(value) for name, value in pl_module.hparams.items()},
        "sampling": {
            name: getattr(recipe, name) for name in ("num_frames", "image_size", "prompt", "tell_event", "blank_frames")
        },
        "precision": str(next(pl_module.parameters()).dtype),
        "schema": pl_module.schema.fingerprint,  # type: ignore[union-attr]
        "versions": {name: version(name) for name in PACKAGES},
    }
    # Where the files lie and how they would be trained does not change an answer.
    deciding = {name: facts["model"][name] for name in ("init", "attention", "max_new_tokens")}
    decisive = {**facts, "checkpoint": sorted(facts["checkpoint"].values()), "model": deciding}
    run_id = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]
    return {"run_id": run_id, "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **facts}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class TrainingMonitor(Callback):
    """Logs learning rates, gradient norms, tokens/s, clips/s and the share of time spent waiting for data."""

    def __init__(self) -> None:
        self._batch_end: float | None = None
        self._batch_start = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._batch_end = time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        self._batch_start = time.perf_counter()
        if trainer.global_step == 0 and batch_idx == 0 and trainer.is_global_zero:
            log.info("first conversation:\n%s", decoded(pl_module, batch))

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        grads: dict[str, list[torch.Tensor]] = {tower: [] for tower in TOWERS}
        for name, parameter in pl_module.named_parameters():
            if parameter.grad is not None:
                grads[tower_of(name)].append(parameter.grad)
        norms = {tower: torch.nn.utils.get_total_norm(found) for tower, found in grads.items() if found}
        total = torch.linalg.vector_norm(torch.stack(list(norms.values())))
        pl_module.log_dict({f"grad_norm/{tower}": norm for tower, norm in norms.items()} | {"grad_norm/all": total})

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        assert self._batch_end is not None
        elapsed, waited = now - self._batch_end, self._batch_start - self._batch_end
        self._batch_end = now
        numbers = {
            "speed/tokens_per_s": batch.num_tokens / elapsed,
            "speed/clips_per_s": len(batch.samples) / elapsed,
            "speed/data_wait_share": waited / elapsed,
        }
        for group in trainer.optimizers[0].param_groups:
            numbers[f"lr/{group['name']}"] = group["lr"]
        pl_module.log_dict(numbers)
        if trainer.global_step % trainer.log_every_n_steps == 0 and trainer.progress_bar_callback is None:  # type: ignore[attr-defined]
            log.info(
                "epoch %d, step %d of %d: loss %.4f, %.2f clips/s, %.0f %% of the time waiting for data",
                trainer.current_epoch, trainer.global_step, trainer.estimated_stepping_batches,
                float(outputs["loss"]), numbers["speed/clips_per_s"], 100 * numbers["speed/data_wait_share"],
            )  # fmt: skip

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Validation is no waiting for training data.
        self._batch_end = time.perf_counter()


def decoded(pl_module: LightningModule, batch: Batch) -> str:
    """The first conversation of a batch as text, image tokens counted instead of repeated."""
    text = pl_module.tokenizer.decode(batch.input_ids_BS[0][batch.attention_mask_BS[0].bool()])  # type: ignore[operator, union-attr]
    token = "<IMG_CONTEXT>"
    pieces = text.split("<img>")
    return "<img>".join(
        piece.replace(token * piece.count(token), f"{piece.count(token)} x {token}") if token in piece else piece
        for piece in pieces
    )


class ValidationSample(Callback):
    """Shows one validation clip in TensorBoard: its frames, the truth and the answer."""

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx or not outputs["predictions"] or trainer.sanity_checking:
            return
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                self._show(logger, trainer.global_step, batch, outputs["predictions"][0])

    @rank_zero_only
    def _show(self, logger: TensorBoardLogger, step: int, batch: Batch, prediction: Prediction) -> None:
        num_frames = len(batch.pixel_values_N3HW) // len(batch.samples)
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        frames = (batch.pixel_values_N3HW[:num_frames].float().cpu() * std + mean).clamp(0, 1)
        truth = batch.samples[0].annotation
        logger.experiment.add_images("validation_clip/frames", frames, step)
        rows = "\n".join(
            f"| {name} | {value} | {prediction.fields.get(name, 'no answer')} |"
            for name, value in (truth.values.items() if truth else ())
            if value != UNKNOWN
        )
        table = f"{prediction.video}: {truth.event if truth else '?'}, answered {prediction.event}\n\n"
        logger.experiment.add_text(
            "validation_clip/answer", f"{table}| field | truth | answer |\n|---|---|---|\n{rows}", step
        )


class ModelFolder(Callback):
    """Writes the trained model as a folder that `predict --model.path` takes, when fit ends.

    Args:
        dirname: name of the folder, below the run's own.
    """

    def __init__(self, dirname: str = "model") -> None:
        self.dirname = dirname

    @rank_zero_only
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = Path(trainer.default_root_dir) / self.dirname
        recipe: Any = trainer.datamodule.recipe  # type: ignore[attr-defined]
        model: Any = pl_module.model
        settings: Mapping[str, Any] = getattr(model.config, "vlm_crash", None) or {}
        model.config.vlm_crash = {**settings, "num_frames": recipe.num_frames, "prompt": recipe.prompt}
        try:
            model.save_pretrained(folder)
            pl_module.tokenizer.save_pretrained(folder)  # type: ignore[operator, union-attr]
        except OSError as error:
            raise _cannot_write(folder, error) from error
        log.info("model folder: %s", folder)
