"""A model and clips so small that a training step takes milliseconds; shared by tests and their processes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset
from transformers import InternVLConfig, InternVLForConditionalGeneration

from vlm_crash.data.collate import Batch, Collator, Item
from vlm_crash.data.sampler import SharedSampler
from vlm_crash.lightning_module import CrashVLM
from vlm_crash.models.tokenizers import load_tokenizer
from vlm_crash.parallel import FSDPPrecision
from vlm_crash.parallel.shards import local_part, total_norm
from vlm_crash.schema.fields import load_schema
from vlm_crash.schema.records import Annotation, Prediction, VideoSample

BASE = Path(__file__).parents[2] / "vlm_crash/demo/base"
NUM_ITEMS = 16
GLOBAL_BATCH = 4
NUM_STEPS = 20
#: Where only what a step computes is of interest: it differs from the first ones on.
FEW_STEPS = 8
#: Number of processes -> ways (worker.py) of which all steps are of interest.
_ALL_STEPS = {
    2: ("zero3", "zero2", "none", "hybrid", "offload", "fp16 zero3", "fp16 zero2"),
    4: ("zero3", "zero2", "hybrid", "fp16 zero3"),
}


def steps_of(name: str, processes: int) -> int:
    """Optimizer steps of a way."""
    return NUM_STEPS if name in _ALL_STEPS[processes] else FEW_STEPS


def write_micro_model(folder: Path, tied: bool = False, side: int = 32) -> None:
    """Two layers a tower; a frame of `side` pixels becomes (side / 16)^2 image tokens."""
    torch.manual_seed(0)
    tokenizer = load_tokenizer(BASE)
    config = InternVLConfig(
        vision_config={
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
            "image_size": side, "patch_size": 8, "attention_bias": True, "layer_scale_init_value": 1.0,
        },
        text_config={
            "model_type": "qwen2", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": len(tokenizer),
            "max_position_embeddings": 256 if side == 32 else 2048, "tie_word_embeddings": tied, "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        downsample_ratio=0.5,
        tie_word_embeddings=tied,
    )  # fmt: skip
    config.vlm_crash = {"prompt": "short", "num_frames": 2, "system_message": ""}
    model = InternVLForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(3)  # gradients of a size that fp16 knows
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


class MicroItems(Dataset):
    """Items of two frames with 1 to 12 labels each; below 0 a filler."""

    def __init__(self, image_token_id: int, num_items: int = NUM_ITEMS, frames: int = 2, side: int = 32) -> None:
        generator = torch.Generator().manual_seed(0)
        schema = load_schema()
        self.items = []
        for index in range(num_items):
            num_labels = 1 + (5 * index) % 12
            num_image_tokens = frames * (side // 16) ** 2
            ids = torch.randint(6, 300, (4 + num_image_tokens + num_labels,), generator=generator)
            ids[2 : 2 + num_image_tokens] = image_token_id
            labels = torch.full_like(ids, -100)
            labels[-num_labels:] = ids[-num_labels:]
            pixels = torch.randn(frames, 3, side, side, generator=generator)
            event = schema.events[index % 2]
            known = {field.name: field.vocabulary[0] for field in event.fields if field.vocabulary}
            annotation = Annotation.of(schema, event.name, known)
            sample = VideoSample(str(index), f"{index}.mp4", Path(f"{index}.mp4"), event.name, annotation, None)
            self.items.append(Item(sample, ids, labels, pixels))

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Item:
        return self.items[index] if index >= 0 else self.items[~index].as_filler()


class Micro(CrashVLM):
    """CrashVLM with SGD: Adam hides wrong sizes of gradients."""

    def __init__(self, path: Path, lr: float = 0.3, **options: Any) -> None:
        super().__init__(path, **{"embedder": None, "num_validation_answers": 0, **options})
        self.lr = lr

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=self.lr, momentum=0.5)
        scheduler = LambdaLR(optimizer, lambda step: 0.98**step)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def precision_plugin(precision: str, **scaling: Any) -> FSDPPrecision:
    """With these settings of its scaler where there is one."""
    return FSDPPrecision(precision, **(scaling if precision == "16-mixed" else {}))


@dataclass
class Record(Callback):
    """What a run's steps came to."""

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.norms.append(float(total_norm([p.grad for p in pl_module.parameters() if p.grad is not None])))
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if not trainer.fit_loop._should_accumulate():
            self.losses.append(float(pl_module.token_mean.value))


class Plant(Callback):
    """One gradient on one process is infinite after the backward pass of a step; what happens then."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.scales: list[float] = []
        self.moved: list[bool] = []
        self._before: list[torch.Tensor] = []

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        if trainer.global_step == self.at and trainer.global_rank == trainer.world_size - 1:
            grads = [local_part(p.grad) for p in pl_module.parameters()]
            next(grad for grad in grads if grad.numel()).view(-1)[0] = torch.inf

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self._before = [local_part(p).detach().clone() for p in pl_module.parameters()]

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.scales.append(trainer.precision_plugin.scaler.get_scale())
        after = [local_part(p) for p in pl_module.parameters()]
        self.moved.append(any(not torch.equal(x, y) for x, y in zip(self._before, after, strict=True)))


class Profiled(Callback):
    """Names of what ran in the second step, counted."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._profiler: Any = None

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 1:
            self._profiler = torch.profiler.profile(activities=list(torch.profiler.supported_activities()))
            self._profiler.__enter__()

    def on_train_batch_end(self, *_: Any) -> None:
        if self._profiler is not None:
            self._profiler.__exit__(None, None, None)
            self.counts = {event.key: event.count for event in self._profiler.key_averages()}
            self._profiler = None


def train(
    folder: Path,
    strategy: Any = "auto",
    precision: Any = "32-true",
    num_processes: int = 1,
    accumulate: int = 1,
    callbacks: tuple[Callback, ...] = (),
    steps: int = NUM_STEPS,
    clip: float = 0.5,
    plugins: Any = None,
    module: CrashVLM | None = None,
    accelerator: str = "cpu",
    collate: Any = None,
    ckpt_path: Path | None = None,
    **options: Any,
) -> tuple[Record, Any, Trainer]:
    """Twenty steps over the same four items each, on any number of processes."""
    module = module or Micro(folder, **options)
    record = Record()
    trainer = Trainer(
        accelerator=accelerator,
        devices=num_processes,
        strategy=strategy,
        precision=precision,
        plugins=plugins,
        max_epochs=100,
        max_steps=steps,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=clip,
        callbacks=[record, *callbacks],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    items = MicroItems(module.model.config.image_token_id)
    batch_size = GLOBAL_BATCH // num_processes // accumulate
    sampler = SharedSampler(items, num_processes, trainer.global_rank, seed=0, batch_size=batch_size)
    loader = DataLoader(items, batch_size=batch_size, sampler=sampler, collate_fn=collate or Collator(0))
    trainer.fit(module, loader, ckpt_path=ckpt_path)
    return record, module, trainer


class Counted(Micro):
    """Keeps which clips were answered, and how many rows it took."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, num_validation_answers=3, max_new_tokens=4)
        self.rows = 0
        self.answered: list[str] = []

    def answer(self, batch: Batch) -> list[Prediction]:
        self.rows += len(batch.input_ids_BS)
        self.answered += [sample.id for sample in batch.samples]
        return super().answer(batch)

    @property
    def counts(self) -> dict[str, Any]:
        """On this process."""
        fields = int(self.field_match.total_K.sum())
        return {"rows": self.rows, "answered": self.answered, "fields": fields}


def score(
    module: Micro, stage: str, strategy: Any = "auto", num_processes: int = 1, batch_size: int = 1
) -> dict[str, float]:
    """Metrics of validation or test over five clips, which two processes cannot share evenly."""
    trainer = Trainer(
        accelerator="cpu",
        devices=num_processes,
        strategy=strategy,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    items = MicroItems(module.model.config.image_token_id, num_items=5)
    sampler = SharedSampler(items, num_processes, trainer.global_rank, batch_size=batch_size)
    loader = DataLoader(items, batch_size=batch_size, sampler=sampler, collate_fn=Collator(0))
    getattr(trainer, stage)(module, loader, verbose=False)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}
