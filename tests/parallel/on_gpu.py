"""Checks of worker.py that need a GPU; no clip is read. Where there is none they run on the CPU, to try them out."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from lightning import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from tests.parallel.micro import (
    GLOBAL_BATCH,
    MicroItems,
    Plant,
    Profiled,
    Record,
    precision_plugin,
    train,
    write_micro_model,
)
from tests.parallel.place import RANK, WORLD
from vlm_crash.data.collate import Collator, Item
from vlm_crash.data.conversation import question
from vlm_crash.data.sampler import SharedSampler
from vlm_crash.demo.draw import render_frame
from vlm_crash.demo.scene import sample_scene
from vlm_crash.lightning_module import CrashVLM
from vlm_crash.parallel import FSDPPrecision, FSDPStrategy
from vlm_crash.parallel.shards import local_part
from vlm_crash.schema.records import Prediction, VideoSample
from vlm_crash.video.image_transform import to_pixel_values

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ACCELERATOR = "gpu" if DEVICE == "cuda" else "cpu"
AGAIN = {"activation_checkpointing": True}

#: name -> (settings of the strategy, precision, options of the run)
GPU_RUNS: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "fp32": ({}, "32-true", {"attention": "math"}),
    "math": ({}, "16-mixed", {"attention": "math", **AGAIN}),
    "math in chunks": ({}, "16-mixed", {"attention": "math", "vision_chunk": 1, **AGAIN}),
    "efficient": ({}, "16-mixed", {"attention": "efficient", **AGAIN}),
    "efficient, no padding": ({}, "16-mixed", {"attention": "efficient", "accumulate": GLOBAL_BATCH // WORLD}),
    "flash": ({}, "16-mixed", {"attention": "flash", **AGAIN}),
    "flash, no padding": ({}, "16-mixed", {"attention": "flash", "accumulate": GLOBAL_BATCH // WORLD}),
    "auto": ({}, "16-mixed", {"attention": "auto", **AGAIN}),
    "zero2": ({"sharding_strategy": "zero2"}, "16-mixed", {}),
    "none": ({"sharding_strategy": "none"}, "16-mixed", {}),
    "summed in fp16": ({"reduce_dtype": "float16"}, "16-mixed", {}),
    "offload": ({"cpu_offload": True}, "16-mixed", {}),
}


def gpu_run(folder: str, name: str) -> dict[str, Any]:
    """Twenty steps on GPUs: losses, what a step of them ran, and where the weights and moments lie."""
    torch.backends.cudnn.allow_tf32 = False  # of the patches' convolution, in fp32
    settings, precision, options = GPU_RUNS[name]
    profiled = Profiled()
    plugin = precision_plugin(precision, init_scale=2.0**10)
    record, module, trainer = train(
        Path(folder), FSDPStrategy(**settings), None, WORLD, callbacks=(profiled,), plugins=plugin,
        accelerator=ACCELERATOR, **options,
    )  # fmt: skip
    moments = [state["momentum_buffer"] for state in trainer.optimizers[0].state.values()]
    tensors = [local_part(tensor) for tensor in (*module.parameters(), *moments)]
    return {
        "losses": record.losses, "norms": record.norms, "counts": profiled.counts, "skipped": plugin.num_skipped,
        "devices": {tensor.device.type for tensor in tensors}, "dtypes": {tensor.dtype for tensor in tensors},
        "buffers": {buffer.dtype for buffer in module.buffers() if buffer.is_floating_point()},
        "backend": dist.get_backend(),
    }  # fmt: skip


def gpu_overflow(folder: str) -> dict[str, Any]:
    """An overflow that is planted on the last process, and a start that is too high."""
    found = {}
    for name, at, scale, steps in (("planted", 2, 2.0**10, 5), ("high", -1, 2.0**28, 16)):
        plant, plugin = Plant(at=at), FSDPPrecision("16-mixed", init_scale=scale)
        train(
            Path(folder), FSDPStrategy(), None, WORLD, callbacks=(plant,), steps=steps, plugins=plugin,
            accelerator=ACCELERATOR,
        )  # fmt: skip
        found[name] = {"scales": plant.scales, "moved": plant.moved, "skipped": plugin.num_skipped}
    return found


def gpu_gather(folder: str) -> dict[str, Any]:
    """Weights and AdamW's moments, gathered over the CPU group, beside each process' part; what the gathering ran."""
    module = CrashVLM(Path(folder), embedder=None, num_validation_answers=0, warmup_ratio=0.0, lr_language=1e-2)
    strategy = FSDPStrategy(state_dict_type="full")
    _, _, trainer = train(
        Path(folder), strategy, "16-mixed", WORLD, steps=2, module=module, accelerator=ACCELERATOR
    )  # fmt: skip
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        whole = strategy.gather_model()
        moments = strategy.optimizer_state(trainer.optimizers[0])
    local = {name: local_part(value).cpu() for name, value in module.state_dict().items()}
    ran = {event.key for event in profiler.key_averages()}
    return {
        "whole": whole, "local": local, "moments": moments.get("state"), "ran": ran,
        "groups": (dist.get_backend(), dist.get_backend(strategy.cpu_group.group)),
    }  # fmt: skip


class MicroData(LightningDataModule):
    """The micro items with a place in the epoch, as CrashDataModule keeps it."""

    def __init__(self, image_token_id: int) -> None:
        super().__init__()
        self.items = MicroItems(image_token_id)
        self.batch_size = GLOBAL_BATCH // WORLD
        self.resumed = (0, 0)

    @property
    def num_train_batches(self) -> int:
        """Known without a loader, which is to be made after the place is restored."""
        return len(self.items) // GLOBAL_BATCH

    def train_dataloader(self) -> Any:
        sampler = SharedSampler(self.items, WORLD, RANK, 0, self.batch_size, self.resumed)
        return DataLoader(self.items, batch_size=self.batch_size, sampler=sampler, collate_fn=Collator(0))

    def state_dict(self) -> dict[str, Any]:
        done = self.trainer.fit_loop.epoch_loop.batch_progress.current.processed
        return {"epoch": self.trainer.current_epoch, "clips": done * GLOBAL_BATCH, "batches": done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.resumed = (state_dict["epoch"], state_dict["clips"])


class Drawer(CrashVLM):
    """Draws on its device in each step; keeps what came."""

    def __init__(self, path: Path) -> None:
        rates = {f"lr_{tower}": 3e-3 for tower in ("vision", "projector", "language")}
        super().__init__(path, embedder=None, num_validation_answers=0, warmup_ratio=0.2, **rates)
        self.drawn: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.drawn.append(float(torch.rand(1, device=self.device)))
        return super().training_step(batch, batch_idx)


def _steps(
    folder: Path, settings: dict[str, Any], saves: list[Any], path: Path | None = None
) -> tuple[dict[str, Any], Any]:
    """Up to step 17, from a checkpoint or from the beginning."""
    torch.manual_seed(0 if path is None else 1)
    module, record = Drawer(folder), Record()
    trainer = Trainer(
        accelerator=ACCELERATOR, devices=WORLD, strategy=FSDPStrategy(**settings), max_epochs=20, max_steps=17,
        plugins=[FSDPPrecision("16-mixed", init_scale=2.0**8, growth_interval=5)], gradient_clip_val=1.0,
        callbacks=[record, *saves], logger=False, enable_checkpointing=bool(saves), enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=MicroData(module.model.config.image_token_id), ckpt_path=path)
    weights = {name: local_part(value).cpu().clone() for name, value in module.state_dict().items()}
    found = {"losses": record.losses, "rates": record.rates, "drawn": module.drawn, "weights": weights}
    return {**found, "scale": trainer.precision_plugin.scaler.get_scale()}, trainer  # type: ignore[attr-defined]


def gpu_resume(folder: str, out: str) -> dict[str, Any]:
    """Whole runs with a checkpoint after step 7, inside an epoch, and runs that go on from it."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    found = {}
    for name, settings in (
        ("sharded", {"state_dict_type": "sharded"}),
        ("full", {"state_dict_type": "full"}),
        ("offload", {"cpu_offload": True}),
    ):
        saves = [ModelCheckpoint(dirpath=Path(out) / name, filename="{step}", every_n_train_steps=7, save_top_k=-1)]
        whole, _ = _steps(Path(folder), settings, saves)
        rest, _ = _steps(Path(folder), settings, [], Path(out) / name / "step=7.ckpt")
        found[name] = {"whole": whole, "rest": rest}
    return found


def gpu_memory(out: str) -> dict[Any, tuple[float, int]]:
    """Loss and peak of allocated bytes of a step, by frames of a group of the vision tower's attention."""
    torch.backends.cudnn.allow_tf32 = False
    write_micro_model(Path(out), side=128)
    found = {}
    for chunk in (None, 8, 1):
        module = CrashVLM(Path(out), embedder=None, attention="math", vision_chunk=chunk).to(DEVICE)
        items = MicroItems(module.model.config.image_token_id, 1, frames=16, side=128)
        batch = Collator(0)([items[0]]).to(DEVICE)
        for _ in range(2):  # the first makes workspaces
            module.zero_grad()
            if DEVICE == "cuda":
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            loss, _ = module._loss(batch)
            loss.backward()
        peak = torch.cuda.max_memory_allocated() if DEVICE == "cuda" else 0
        found[chunk] = (float(loss), peak)
    return found


def demo_items(module: CrashVLM, num_scenes: int) -> list[Item]:
    """Scenes as `predict` would show them to the demo's base model, drawn and never encoded."""
    inputs, num_frames, items = module.inputs, 8, []
    asked = question(module.schema, inputs.prompt)
    for seed in range(num_scenes):
        scene = sample_scene(seed)
        times = [(index + 0.5) * scene.duration_s / num_frames for index in range(num_frames)]
        pixels = to_pixel_values(np.stack([render_frame(scene, time) for time in times]), inputs.image_size)
        ids = inputs.conversation_tokenizer(asked, num_frames, scene.duration_s).input_ids_S
        sample = VideoSample(str(seed), f"{seed}.mp4", Path(f"{seed}.mp4"), None, None, None)
        items.append(Item(sample, ids, None, pixels))
    return items


class Answers(Callback):
    """What was predicted, in order."""

    def __init__(self) -> None:
        self.answers: list[Prediction] = []

    def on_predict_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
        self.answers += outputs


def gpu_predict(folder: str) -> dict[str, Any]:
    """Answers to drawn scenes, in fp32 on the CPU and in fp16 on the GPU, as `predict` computes them."""
    found: dict[str, Any] = {}
    for place, accelerator in (("cpu", "cpu"), ("gpu", ACCELERATOR)):
        module = CrashVLM(Path(folder), embedder=None, max_new_tokens=256, num_validation_answers=0)
        loader = DataLoader(demo_items(module, 4), batch_size=2, collate_fn=Collator(0, "left"))  # type: ignore[arg-type]
        collected = Answers()
        trainer = Trainer(
            accelerator=accelerator, devices=1, callbacks=[collected], logger=False, enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip
        trainer.predict(module, loader, return_predictions=False)
        answers = collected.answers
        found[place] = {
            "texts": [answer.response for answer in answers], "status": {answer.status for answer in answers},
            "probabilities": [answer.event_probability for answer in answers], "dtype": module.model.dtype,
        }  # fmt: skip
    return found
