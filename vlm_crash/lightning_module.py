"""The system: InternVL with its steps, optimizers and answers.

Enters: batches of vlm_crash.data. Leaves: losses and scores to the loggers, Predictions to the callbacks.
"""

# Suffixes: B batch, S sequence, D hidden.

import logging
import time
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from vlm_crash.data.collate import Batch, prompts_of
from vlm_crash.data.dataset import REMEMBERED, ModelInputs
from vlm_crash.data.dry_pass import dry_pass
from vlm_crash.data.tokenization import ConversationTokenizer
from vlm_crash.metrics.field_match import FieldMatch
from vlm_crash.models.activation_checkpointing import checkpoint_towers
from vlm_crash.models.adapters import Adapters, held_dtype
from vlm_crash.models.answering import NOT_FINITE, Answer, Answering, check_decoding, with_terms
from vlm_crash.models.attention import set_attention
from vlm_crash.models.attention_kernels import heads_of
from vlm_crash.models.attention_of_towers import set_tower_attention
from vlm_crash.models.context import Context
from vlm_crash.models.fitted_form import check_form, fitted_form
from vlm_crash.models.folder import folder_settings, image_size, read_config, tokens_per_frame
from vlm_crash.models.hub import local_folder
from vlm_crash.models.internvl import TOWERS, cast_parameters, fill_model, label_loss, load_model, tower_of
from vlm_crash.models.lora import LORA, LoraSettings
from vlm_crash.models.lora_record import check_lora
from vlm_crash.models.optimization import check_settings, parameter_counts, parameter_groups, warmup_then_cosine
from vlm_crash.models.quantized import check_load_in, check_stage, hold_in_fewer_bits, loaded_dtype
from vlm_crash.models.tokenizers import check_tokenizer, load_tokenizer
from vlm_crash.models.training_checkpoint import SETTINGS
from vlm_crash.models.vision import embed_prompt
from vlm_crash.parallel.fsdp import FSDPStrategy
from vlm_crash.parallel.islands import check_islands, place_islands
from vlm_crash.parallel.overflow_search import where_not_finite
from vlm_crash.parallel.resume import ExactResume
from vlm_crash.parallel.steps import DropGradients, fused_step, loss_scale, num_optimizer_steps
from vlm_crash.parallel.stopping import StopTogether
from vlm_crash.parallel.token_mean import TokenMean
from vlm_crash.schema.fields import load_schema
from vlm_crash.schema.records import Prediction
from vlm_crash.schema.response import parse

log = logging.getLogger(__name__)


class CrashVLM(LightningModule):
    """InternVL that answers the crash form.

    Args:
        path: model folder, in transformers' or the original OpenGVLab layout, or OWNER/NAME on the Hugging Face hub.
        init: weights (load them) or random (only the folder's shapes and tokenizer: training from scratch).
        revision: branch, tag or commit, where path is a name on the hub.
        attention: SDPA kernel: math, efficient, flash (efficient where padding needs a mask) or auto.
        lr_vision: peak learning rate of the vision tower.
        lr_projector: peak learning rate of the projector.
        lr_language: peak learning rate of the language model.
        weight_decay: AdamW's, on matrices only.
        warmup_ratio: share of the steps in which the learning rate rises; then it falls as a cosine to 0.
        freeze: towers that are not trained: any of vision, projector, language.
        lora: train adapters beside frozen weights (--model.lora.rank 16 ...); unset: the weights themselves.
        activation_checkpointing: compute activations again in the backward pass instead of keeping them: true, false,
            or a list of towers (vision, language).
        fp32_modules: modules that compute in fp32 where the rest computes in half precision (16-mixed, bf16-mixed):
            whole names, last parts of names, or classes. Where fp16 overflows, --overflow_sentinel names them.
        vision_chunk: frames that go through the vision tower at once, in training through each of its attentions;
            unset: all of a batch.
        decoding: best_term (the form is given; of each choice the most probable term), greedy (the same, token by
            token) or free (as the model likes; --data.prompt full asks for the form).
        max_new_tokens: most tokens of each text field (unset: 128), or with decoding free of the answer (unset: 1024).
        num_validation_answers: clips of each validation run that are answered and scored, over all processes (0: the
            loss alone).
        embedder: sentence embedder of the text fields: minilm, a folder, or unset for none.
        schema: YAML with events and fields; unset: the crash and near-miss form. Follows data.schema.
        load_in: matrices in fewer bits: on a GPU the language model's in 8bit or 4bit (bitsandbytes), on a CPU both
            towers' in int8; unset: fp16 on a GPU, fp32 on a CPU.
    """

    # More than ten parameters: this constructor is the command line's --model section.
    def __init__(  # noqa: PLR0913
        self,
        path: Path,
        init: str = "weights",
        revision: str | None = None,
        attention: str = "math",
        lr_vision: float = 2e-6,
        lr_projector: float = 1e-5,
        lr_language: float = 1e-5,
        weight_decay: float = 0.0,
        warmup_ratio: float = 0.03,
        freeze: list[str] | None = None,
        lora: LoraSettings | None = None,
        activation_checkpointing: bool | list[str] = False,
        vision_chunk: int | None = None,
        decoding: str = "best_term",
        max_new_tokens: int | None = None,
        num_validation_answers: int = 32,
        embedder: str | None = "minilm",
        schema: Path | None = None,
        fp32_modules: list[str] | None = None,
        load_in: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["lora"])
        leasts = {"vision_chunk": (vision_chunk, 1), "max_new_tokens": (max_new_tokens, 1)}
        leasts |= {"num_validation_answers": (num_validation_answers, 0)}
        check_settings(freeze or [], warmup_ratio, leasts)
        check_decoding(decoding)
        check_load_in(load_in, lora is not None)
        self.path = local_folder(path, revision)
        set_attention(attention, heads_of(read_config(self.path)))
        self.learning_rates = {"vision": lr_vision, "projector": lr_projector, "language": lr_language}
        self.weight_decay = weight_decay
        self.warmup_ratio = warmup_ratio
        self.vision_chunk = vision_chunk
        self.decoding, self.max_new_tokens, self.load_in = decoding, max_new_tokens, load_in
        self.num_validation_answers = num_validation_answers
        self.schema = load_schema(schema)
        # from_pretrained leaves evaluation mode, in which activation checkpointing is silently off.
        dtype = loaded_dtype(load_in, held_dtype(lora, self.path, init, freeze or []))
        self.model = load_model(self.path, init, dtype).train()
        self.tokenizer = load_tokenizer(self.path)
        check_tokenizer(self.tokenizer, self.model.config)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(tower_of(name) not in (TOWERS if load_in else freeze or []))
        if load_in:
            hold_in_fewer_bits(self.model, load_in)
        self.adapters = Adapters(self, lora, self.path) if lora else None
        checkpoint_towers(self.model, activation_checkpointing)
        set_tower_attention(self.model, attention, vision_chunk)
        self.token_mean, self.scored_mean = TokenMean(), TokenMean()
        self.inputs = self._inputs()
        self.context = Context.of(self.model.config)
        self.fitted_schema, self.fitted_terms = fitted_form(self.model.config, getattr(self.adapters, "form", None))
        self.field_match = FieldMatch(self.schema, embedder)
        self.provenance = ""
        self.fp32_modules = check_islands(self, fp32_modules or ())

    def _inputs(self) -> ModelInputs:
        config = self.model.config
        settings = folder_settings(config)
        height, width = image_size(config)
        if height != width:
            raise ValueError(f"config.json asks for frames of {height}x{width} pixels; only squares are supported")
        return ModelInputs(
            tokenizer=self.tokenizer,
            tokens_per_frame=tokens_per_frame(config),
            image_size=height,
            **{name: getattr(settings, name) for name in REMEMBERED},
        )

    @cached_property
    def conversation(self) -> ConversationTokenizer:
        """The folder's own; the command line puts the one that --data asks for in its place."""
        return self.inputs.conversation_tokenizer

    @cached_property
    def answering(self) -> Answering:
        """Made with the first answer, when model, conversation and dataset are known."""
        schema = with_terms(self.field_match.schema, self.fitted_terms)
        asked = self.conversation
        options = (self.context, self.decoding, self.max_new_tokens)
        return Answering(schema, self.tokenizer, asked.answer_tokens, asked.end_token_id, *options)

    def check_trainable(self) -> None:
        """ValueError where every tower is frozen: there is nothing to train."""
        if not any(parameter.requires_grad for parameter in self.model.parameters()):
            raise ValueError(f"freeze={list(TOWERS)} leaves nothing to train; leave one of them out of --model.freeze")

    @property
    def shard_units(self) -> set[str]:
        """What FSDPStrategy gathers together: the layers of both towers, the projector, embedding and head."""
        model = self.model.model
        layers = {*(model.vision_tower._no_split_modules or ()), *(model.language_model._no_split_modules or ())}
        return {*layers, "multi_modal_projector", "embed_tokens", "lm_head"}

    def fill_weights(self, device: torch.device) -> None:
        """Weights for a model that was made within `weights_later`; FSDPStrategy calls it once they are shared out."""
        fill_model(self.model, self.path, device)

    def configure_callbacks(self) -> list[Callback]:
        """What makes every run of this module stop and go on as one, with any strategy, and hold no stale gradients."""
        return [ExactResume(), StopTogether(), DropGradients()]

    def setup(self, stage: str) -> None:
        """fp16 weights where a GPU only predicts; answers are scored by the terms of the dataset."""
        if stage == "fit":
            self.check_trainable()
        check_stage(self.load_in, stage, self.trainer.strategy.root_device)
        place_islands(self, stage)
        if self.load_in is None and stage == "predict" and self.trainer.strategy.root_device.type == "cuda":
            cast_parameters(self.model, torch.float16)
        elif self.adapters is not None:
            strategy = self.trainer.strategy
            self.adapters.settle(str(strategy.precision_plugin.precision), isinstance(strategy, FSDPStrategy))
        dataset_schema = getattr(getattr(self.trainer, "datamodule", None), "dataset_schema", None)
        if dataset_schema is not None:
            self.field_match.schema = dataset_schema
        scores = stage == "test" or (stage in ("fit", "validate") and self.num_validation_answers > 0)
        if scores and self.field_match.embedder is not None:
            self.field_match.embedder.embed(["A wrong folder is told now, not after an epoch."])
        self._check_context(stage)
        log.info("parameters: %s", parameter_counts(self.model))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adapters say what they are, and beside which base."""
        if self.adapters is not None:
            checkpoint[LORA] = self.adapters.record

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A checkpoint brings its form with it, in place of the folder's; adapters must meet their base."""
        check_lora(checkpoint.get(LORA), self.adapters.record if self.adapters else None, self.trainer.ckpt_path)
        if settings := checkpoint.get(SETTINGS):  # another program's says nothing: the folder's stay
            self.fitted_schema, self.fitted_terms = settings.get("schema"), settings.get("terms")
        self.__dict__.pop("answering", None)

    # These three come after a checkpoint is read, and before anything is written or deleted.
    def on_validation_model_eval(self) -> None:
        self._check_form()
        super().on_validation_model_eval()

    def on_test_model_eval(self) -> None:
        self._check_form()
        super().on_test_model_eval()

    def on_predict_model_eval(self) -> None:
        self._check_form()
        super().on_predict_model_eval()

    def _check_form(self) -> None:
        """The form that answers are read with must be the one that they are written in; training may bring another."""
        if self.trainer.state.fn != "fit":
            check_form(self.fitted_schema, self.schema, self.hparams["schema"], self.trainer.ckpt_path or self.path)

    def _check_context(self, stage: str) -> None:
        """ValueError before the first step where there are more tokens than the model has places for."""
        datamodule: Any = getattr(self.trainer, "datamodule", None)
        recipe: Any = getattr(datamodule, "recipe", None)
        for name, samples in datamodule.samples.items() if recipe else ():
            if samples and name != "predict":
                dry_pass(recipe, samples, name, None if self.context.is_extended else self.context.num_places)
            if samples and (name in ("predict", "test") or (name == "val" and self.num_validation_answers)):
                self.answering.foretell(recipe.longest(samples, supervised=False))

    def _loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        assert batch.labels_BS is not None
        self.context.check(batch.longest, "a prompt and its answer")
        chunk = None if self.training else self.vision_chunk  # in training the attentions cut (set_tower_attention)
        embeds_BSD = embed_prompt(self.model, batch.input_ids_BS, batch.pixel_values_N3HW, chunk, batch.clip_lengths)
        return label_loss(self.model, embeds_BSD, batch.attention_mask_BS, batch.labels_BS, batch.clip_lengths)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean loss per supervised token of the whole optimizer step, over its batches and all processes."""
        loss_sum, num_labels = self._loss(batch)
        loss = self.token_mean.loss(loss_sum, num_labels, batch_idx % self.trainer.accumulate_grad_batches == 0)
        self.log("train/loss", self.token_mean.value, prog_bar=True, batch_size=1)
        return loss

    def loss_again(self, batch: Batch) -> Tensor:
        """What training_step gave for a batch of the present optimizer step; nothing is summed or logged."""
        return self.token_mean.again(self._loss(batch)[0])

    def on_after_backward(self) -> None:
        """Weigh the tokens of all batches of an optimizer step alike."""
        if not self.trainer.fit_loop._should_accumulate():
            self.token_mean.correct(self.parameters(), self.trainer.accumulate_grad_batches)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        self._scale_before_step = loss_scale(self.trainer)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """The schedule goes on with steps that were taken: a skipped one (overflow in fp16) lowers the loss scale."""
        if loss_scale(self.trainer) >= self._scale_before_step:
            super().lr_scheduler_step(scheduler, metric)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with a group per tower; warm-up, then cosine to 0, by optimizer step."""
        groups = parameter_groups(self.model, self.learning_rates, self.weight_decay)
        optimizer = AdamW(groups, fused=fused_step(self.trainer))
        factor = warmup_then_cosine(self.warmup_ratio, num_optimizer_steps(self.trainer))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}}

    def on_validation_epoch_start(self) -> None:
        self.field_match.reset()
        # The processes take the clips in turns, so the first ones of each are the first ones of all.
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self._trainer else (0, 1)
        self._to_answer = max(0, self.num_validation_answers - rank + world - 1) // world
        # Weights may be shared out: all processes answer as many rows, and some of these are dropped on some.
        self._rows_to_answer = -(-self.num_validation_answers // world)

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, list[Prediction]]:
        """Loss of every clip; answers of the first `num_validation_answers` of all processes."""
        self.scored_mean.loss(*self._loss(batch), is_first=batch_idx == 0)
        answered = batch.first(self._rows_to_answer, self._to_answer)
        self._rows_to_answer -= len(answered.input_ids_BS)
        self._to_answer -= len(answered.samples)
        return {"predictions": self._score(answered) if len(answered.input_ids_BS) else []}

    def on_validation_epoch_end(self) -> None:
        self._log_loss("val")
        if self.num_validation_answers:
            self._log_scores("val")

    def on_test_epoch_start(self) -> None:
        self.field_match.reset()

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, list[Prediction]]:
        """Answers and scores of every clip."""
        self.scored_mean.loss(*self._loss(batch), is_first=batch_idx == 0)
        return {"predictions": self._score(batch)}

    def on_test_epoch_end(self) -> None:
        self._log_loss("test")
        self._log_scores("test")

    def _score(self, batch: Batch) -> list[Prediction]:
        predictions = self.answer(prompts_of(batch, self.conversation.end_token_id))
        parsed = [parse(self.field_match.schema, prediction.response) for prediction in predictions]
        truths = [sample.annotation for sample in batch.samples]
        assert all(truths), "prepared samples carry annotations"
        self.field_match.update(parsed, [truth for truth in truths if truth is not None])
        return predictions

    def _log_loss(self, stage: str) -> None:
        # Summed by us: Lightning averages the numbers of labels over processes as integers, and rounds them down.
        self.log(f"{stage}/loss", self.scored_mean.value, prog_bar=stage == "val", sync_dist=True)

    def _log_scores(self, stage: str) -> None:
        scores = self.field_match.compute()
        # What has no truth in this run is NaN: left out of the log, never shown as 0.
        found = {f"{stage}/{name}": score for name, score in scores.items() if not torch.isnan(score)}
        self.log_dict(found, sync_dist=True)  # FieldMatch has counted over all processes: equal on all

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Prediction] | list[dict[str, float] | str]:
        """One Prediction per clip of the batch, failed ones included; of windows, the probabilities of the events."""
        if batch.events_only:
            return self.event_probabilities(batch) if batch.samples else []
        failed = [
            Answer(error=item.reason).prediction(self.schema, item.sample, self.provenance) for item in batch.failed
        ]
        return [*failed, *self.answer(batch)] if batch.samples else failed

    def event_probabilities(self, batch: Batch) -> list[dict[str, float] | str]:
        """By event of the schema, for each row of a left-padded batch of prompts; where they are not finite, why."""
        judge = self.answering.event_probabilities
        found = judge(self.model, self._embedded(batch), batch.attention_mask_BS)
        reason = ""
        if None in found:
            where = where_not_finite(self, lambda: judge(self.model, self._embedded(batch), batch.attention_mask_BS))
            reason = f"{NOT_FINITE}: {where}"
            log.warning("%d of %d windows: %s", found.count(None), len(found), reason)
        return [reason if probabilities is None else probabilities for probabilities in found]

    def _embedded(self, batch: Batch) -> Tensor:
        return embed_prompt(self.model, batch.input_ids_BS, batch.pixel_values_N3HW, self.vision_chunk)

    def answer(self, batch: Batch) -> list[Prediction]:
        """Answer a left-padded batch of prompts."""
        start = time.perf_counter()
        answers = self._answers(batch)
        if self._any_process(any(answer.is_not_finite for answer in answers)):
            where = where_not_finite(self, lambda: self._answers(batch))
            answers = [replace(a, error=f"{a.error}: {where}") if a.is_not_finite else a for a in answers]
        seconds = (time.perf_counter() - start) / len(batch.input_ids_BS)
        predictions = []
        for sample, answer in zip(batch.samples, answers, strict=False):  # fillers, the last, have no sample
            if answer.cut:
                log.warning("%s: %s", sample.video, answer.cut_remark)
            predictions.append(answer.prediction(self.schema, sample, self.provenance, seconds))
        return predictions

    def _answers(self, batch: Batch) -> list[Answer]:
        options = (self._any_process, self._most_of_processes)
        return self.answering.answer(self.model, self._embedded(batch), batch.attention_mask_BS, *options)

    def _any_process(self, runs: bool) -> bool:
        """Whether an answer is unfinished anywhere: weights that are shared out are gathered by all, or by none."""
        strategy = self.trainer.strategy if self._trainer else None
        return strategy.reduce_boolean_decision(runs, all=False) if isinstance(strategy, FSDPStrategy) else runs

    def _most_of_processes(self, room: int) -> int:
        """The most room for an answer on any process, for the same reason."""
        strategy = self.trainer.strategy if self._trainer else None
        return max(strategy.cpu_group.gather_object(room)) if isinstance(strategy, FSDPStrategy) else room
