"""What a validation run looks like in TensorBoard.

Enters: validation batches with their predictions. Leaves: clips with their frames, truths and answers, and confusion
matrices over all processes. Invariant: the first process writes what all have counted.
"""

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from vlm_crash.callbacks.confusion_image import draw
from vlm_crash.data.collate import Batch
from vlm_crash.metrics.class_scores import matrix_scores
from vlm_crash.metrics.confusion import NO_ANSWER, OTHER, FieldConfusion
from vlm_crash.schema.fields import UNKNOWN
from vlm_crash.schema.records import Prediction, VideoSample
from vlm_crash.schema.response import parse
from vlm_crash.video.image_transform import IMAGENET_MEAN, IMAGENET_STD


def boards(trainer: Trainer) -> list[Any]:
    """TensorBoard's writers; none on other processes than the first."""
    if not trainer.is_global_zero:
        return []
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


class ValidationSamples(Callback):
    """Shows the first validation clips of the first process in TensorBoard: frames, truth and answer.

    Args:
        num_clips: clips of each validation run that are shown, of those that are answered.
    """

    def __init__(self, num_clips: int = 4) -> None:
        self.num_clips = num_clips
        self._num_shown = 0

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._num_shown = 0

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        if trainer.sanity_checking:
            return
        clips = batch.pixel_values_N3HW.split(batch.frames_per_clip)
        for row, prediction in enumerate(outputs["predictions"][: self.num_clips - self._num_shown]):
            self._num_shown += 1
            for board in boards(trainer):
                tag = f"validation_clip_{self._num_shown}"
                board.add_images(f"{tag}/frames", _pixels(clips[row]), trainer.global_step)
                board.add_text(f"{tag}/answer", _table(batch.samples[row], prediction), trainer.global_step)


def _pixels(frames_F3HW: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (frames_F3HW.float().cpu() * std + mean).clamp(0, 1)


def _table(sample: VideoSample, prediction: Prediction) -> str:
    truth = sample.annotation
    rows = "\n".join(
        f"| {name} | {value} | {prediction.fields.get(name, 'no answer')} |"
        for name, value in (truth.values.items() if truth else ())
        if value != UNKNOWN
    )
    head = f"{prediction.video}: {truth.event if truth else '?'}, answered {prediction.event}\n\n"
    return f"{head}| field | truth | answer |\n|---|---|---|\n{rows}"


class ConfusionMatrices(Callback):
    """Shows a confusion matrix of the event and of each categorical field after each validation run in TensorBoard,
    and what it says in two numbers: balanced accuracy and macro-F1, given the true event."""

    def __init__(self) -> None:
        self._counts: FieldConfusion | None = None

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module: Any = pl_module
        # The form of the dataset is known by now.
        self._counts = FieldConfusion(module.field_match.schema).to(trainer.strategy.root_device)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        assert self._counts is not None
        parsed = [parse(self._counts.schema, prediction.response) for prediction in outputs["predictions"]]
        truths = [sample.annotation for sample in batch.samples[: len(parsed)]]
        self._counts.update(parsed, [truth for truth in truths if truth is not None])

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self._counts is not None
        if trainer.sanity_checking or not pl_module.num_validation_answers:
            return
        # All processes add up, the first one draws.
        for name, counts in self._counts.compute().items():
            for board in boards(trainer):
                picture = matrix_picture(name, counts.cpu(), self._counts.terms[name])
                board.add_image(f"val_confusion/{name}", picture, trainer.global_step, dataformats="HWC")
                for score, value in zip(("balanced_accuracy", "macro_f1"), matrix_scores(counts.cpu()), strict=True):
                    board.add_scalar(f"val_{score}/{name}", value, trainer.global_step)


def matrix_picture(name: str, counts: torch.Tensor, terms: tuple[str, ...]) -> Any:
    """Rows that have a truth, columns that have such a row or an answer."""
    words = [*terms, OTHER, NO_ANSWER]
    rows = [place for place in range(len(terms) + 1) if counts[place].any()]
    columns = [place for place in range(len(words)) if place in rows or counts[:, place].any()]
    chosen = counts[rows][:, columns].numpy()
    row_words, column_words = ([words[k].replace("_", " ") for k in places] for places in (rows, columns))
    return draw(name, chosen, row_words, column_words)
