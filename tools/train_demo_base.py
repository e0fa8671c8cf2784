"""Train the small base model that ships with the package, on rendered scenes that the demo never shows.

    python tools/train_demo_base.py --out vlm_crash/demo/base --scenes 24000 --epochs 4

Scenes are drawn straight to the model's frames (no file, no codec), from seeds far above the demo's; a tokenizer is
trained on their response texts; then the same LightningModule as everywhere learns the form. The log, with the scores
on held-out scenes, is written beside the weights as base.json.
"""

import argparse
import json
import multiprocessing
import platform
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vlm_crash.data.collate import Collator, Item
from vlm_crash.data.conversation import frame_lines, question
from vlm_crash.data.dataset import ModelInputs
from vlm_crash.demo.base_model import IMAGE_SIZE, NUM_FRAMES, write_empty_model
from vlm_crash.demo.draw import render_frame
from vlm_crash.demo.scene import sample_scene
from vlm_crash.lightning_module import CrashVLM
from vlm_crash.schema.fields import load_schema
from vlm_crash.schema.records import Annotation, VideoSample
from vlm_crash.schema.response import render
from vlm_crash.video.frame_sampling import middle_frame_indices
from vlm_crash.video.image_transform import IMAGENET_MEAN, IMAGENET_STD

#: The demo's scenes have seeds below this (tests/demo holds it to that).
FIRST_SEED = 1_000_000_000
FRAME_SHAPE = (NUM_FRAMES, IMAGE_SIZE, IMAGE_SIZE, 3)


def render_scene(seed: int) -> np.ndarray:
    """The frames the model sees of one scene [F, S, S, 3] uint8, by the reader's rule, through the same resize."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as F

    torch.set_num_threads(1)
    scene = sample_scene(seed)
    indices = middle_frame_indices(round(scene.duration_s * scene.fps), NUM_FRAMES)
    frames_FHWC = np.stack([np.asarray(render_frame(scene, index / scene.fps)) for index in indices])
    frames_FCHW = torch.from_numpy(frames_FHWC).permute(0, 3, 1, 2)
    size = [IMAGE_SIZE, IMAGE_SIZE]
    small = F.resize(frames_FCHW, size, interpolation=InterpolationMode.BICUBIC, antialias=True)
    return small.permute(0, 2, 3, 1).numpy()


def render_all(seeds: range, cache: Path) -> np.ndarray:
    """Frames of all scenes, in a file that is made once."""
    path = cache / f"frames_{seeds.start}_{len(seeds)}_{IMAGE_SIZE}.npy"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        frames = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=(len(seeds), *FRAME_SHAPE))
        start = time.perf_counter()
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            for row, drawn in enumerate(pool.imap(render_scene, seeds, chunksize=16)):
                frames[row] = drawn
                if row % 2000 == 0:
                    print(f"{row} scenes drawn, {time.perf_counter() - start:.0f} s", flush=True)
        frames.flush()
        part.rename(path)
    return np.load(path, mmap_mode="r")


@dataclass
class Scenes(Dataset[Item]):
    """Drawn scenes as items. Training shifts and dims the frames a little, the same way within a clip."""

    frames: np.ndarray
    seeds: range
    inputs: ModelInputs
    train: bool

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, index: int) -> Item:
        schema = load_schema()
        scene = sample_scene(self.seeds[index])
        annotation = Annotation.of(schema, scene.event, scene.values)
        tokens = self.inputs.conversation_tokenizer(
            question(schema, "short"), NUM_FRAMES, scene.duration_s, render(schema, annotation)
        )
        sample = VideoSample(
            id=str(index),
            video=f"{index}.mp4",
            path=Path("-"),
            event=scene.event,
            annotation=annotation,
            duration_s=None,
        )
        frames_F3HW = torch.from_numpy(np.array(self.frames[index])).permute(0, 3, 1, 2).float() / 255
        if self.train:
            frames_F3HW = jitter(frames_F3HW)
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        return Item(sample, tokens.input_ids_S, tokens.labels_S, (frames_F3HW - mean) / std)


def jitter(frames_F3HW: Tensor) -> Tensor:
    """Shift by up to 4 pixels (edges repeated), change brightness and contrast by up to a tenth, add faint noise."""
    shift_y, shift_x = torch.randint(-4, 5, (2,)).tolist()
    padded = torch.nn.functional.pad(frames_F3HW, (4, 4, 4, 4), mode="replicate")
    size = frames_F3HW.shape[-1]
    shifted = padded[..., 4 + shift_y : 4 + shift_y + size, 4 + shift_x : 4 + shift_x + size]
    gain, bias = 1 + 0.1 * (2 * torch.rand(()) - 1), 0.05 * (2 * torch.rand(()) - 1)
    return (shifted * gain + bias + 0.01 * torch.randn_like(shifted)).clamp(0, 1)


class Lines(Callback):
    """Prints the loss every 50 steps, and the scores after each epoch."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: object, batch_idx: int
    ) -> None:
        if trainer.global_step % 50 == 0:
            print(f"step {trainer.global_step}: loss {float(outputs['loss']):.3f}", flush=True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        shown = {name: round(float(value), 3) for name, value in trainer.callback_metrics.items()}
        print(f"epoch {trainer.current_epoch}: {shown}", flush=True)
        # A stopped run can be gone on from: --start_from CACHE/model.
        pl_module.model.save_pretrained(Path(trainer.default_root_dir) / "model")  # type: ignore[operator, union-attr]


def to_half(folder: Path) -> int:
    """Store the weights as fp16; the folder's size in bytes."""
    path = folder / "model.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})
    return sum(file.stat().st_size for file in folder.iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--cache", type=Path, default=Path("runs/demo_base"), help="folder for drawn frames")
    parser.add_argument("--scenes", type=int, default=24000)
    parser.add_argument("--test_scenes", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--start_from", type=Path, help="model folder to go on from; unset: random weights")
    options = parser.parse_args()
    start = time.perf_counter()
    seed_everything(0)
    seeds = range(FIRST_SEED, FIRST_SEED + options.scenes)
    test_seeds = range(FIRST_SEED - options.test_scenes, FIRST_SEED)
    frames, test_frames = render_all(seeds, options.cache), render_all(test_seeds, options.cache)
    work = options.cache / "model"
    if options.start_from:
        shutil.copytree(options.start_from, work, dirs_exist_ok=True)
    else:
        write_empty_model(work, training_texts(seeds[:6000]))
    rendered = time.perf_counter() - start
    rates = {f"lr_{tower}": options.lr for tower in ("vision", "projector", "language")}
    system = CrashVLM(work, "weights", "math", **rates, weight_decay=0.05, max_new_tokens=256, embedder=None)
    trainer = Trainer(
        accelerator="cpu", precision="bf16-mixed", max_epochs=options.epochs, gradient_clip_val=1.0, logger=False,
        default_root_dir=options.cache, enable_checkpointing=False, num_sanity_val_steps=0, log_every_n_steps=10,
        enable_progress_bar=False, callbacks=[Lines()],
    )  # fmt: skip
    collate = Collator(system.conversation.end_token_id)
    train, test = (
        DataLoader(
            Scenes(array, used, system.inputs, is_train),
            batch_size=options.batch_size, shuffle=is_train, collate_fn=collate, num_workers=1, persistent_workers=True,
        )
        for array, used, is_train in ((frames, seeds, True), (test_frames, test_seeds, False))
    )  # fmt: skip
    system.num_validation_answers = options.test_scenes
    trainer.fit(system, train, test)
    scores = {name: float(value) for name, value in trainer.callback_metrics.items()}
    options.out.mkdir(parents=True, exist_ok=True)
    system.model.config.vlm_crash = {
        **system.model.config.vlm_crash,
        "base": "trained on rendered scenes by tools/train_demo_base.py; has never seen a real clip",
    }
    system.model.save_pretrained(options.out)
    system.tokenizer.save_pretrained(options.out)
    log = {
        "command": f"python tools/train_demo_base.py --scenes {options.scenes} --epochs {options.epochs}",
        "first_seed": FIRST_SEED, "scenes": options.scenes, "epochs": options.epochs,
        "test_scenes": options.test_scenes,
        "seconds": {"drawing": round(rendered), "all": round(time.perf_counter() - start)},
        "machine": f"{torch.get_num_threads()} CPU threads, {platform.machine()}", "torch": torch.__version__,
        "bytes": to_half(options.out), "scores": scores,
    }  # fmt: skip
    (options.out / "base.json").write_text(json.dumps(log, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(log, indent=1))


def training_texts(seeds: range) -> list[str]:
    """What the tokenizer learns from: responses, and the questions around them."""
    schema = load_schema()
    texts = []
    for seed in seeds:
        scene = sample_scene(seed)
        texts.append(render(schema, Annotation.of(schema, scene.event, scene.values)))
    asked = [frame_lines(NUM_FRAMES, tenths / 10) + question(schema, "short") for tenths in range(30, 90)]
    return texts + asked * 10


if __name__ == "__main__":
    main()
