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
import torch.nn.functional as F
from lightning import Callback, LightningModule, Trainer, seed_everything
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
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
    from torchvision.transforms.v2 import functional as transforms

    torch.set_num_threads(1)
    scene = sample_scene(seed)
    indices = middle_frame_indices(round(scene.duration_s * scene.fps), NUM_FRAMES)
    frames_FHWC = np.stack([np.asarray(render_frame(scene, index / scene.fps)) for index in indices])
    frames_FCHW = torch.from_numpy(frames_FHWC).permute(0, 3, 1, 2)
    size = [IMAGE_SIZE, IMAGE_SIZE]
    small = transforms.resize(frames_FCHW, size, interpolation=InterpolationMode.BICUBIC, antialias=True)
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


#: What any frame shows; the other fields, and the event, are asked of the last frame alone.
EVERY_FRAME = {
    "Light_condition", "Weather", "Road_surface_condition", "Road_type", "Road_flat", "Lanes", "Traffic_condition",
}  # fmt: skip
#: Only several frames together show them.
MOTIONS = {"Ego_pre_avoid_movement", "Other_pre_avoid_movement"}


class FrameHeads(nn.Module):
    """One linear classifier per field on the pooled patches of a frame: teaches the vision tower what to look for."""

    def __init__(self, hidden_size: int, classes: dict[str, list[str]]) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(2 * hidden_size, len(terms)) for name, terms in classes.items()})

    def forward(self, patches_BPD: Tensor) -> dict[str, Tensor]:
        pooled = torch.cat([patches_BPD.mean(dim=1), patches_BPD.amax(dim=1)], dim=1).float()
        return {name: head(pooled) for name, head in self.heads.items()}


def frame_labels(seeds: range) -> tuple[dict[str, list[str]], dict[str, Tensor]]:
    """Terms per field, and per field the class of each scene (-100 where its event has no such field)."""
    texts = {field.name for field in load_schema().fields if field.kind == "text"}
    values = [{"event": scene.event, **scene.values} for scene in map(sample_scene, seeds)]
    names = sorted({name for found in values for name in found} - texts - MOTIONS)
    classes = {name: sorted({found[name] for found in values if name in found}) for name in names}
    labels = {
        name: torch.tensor([terms.index(found[name]) if name in found else -100 for found in values])
        for name, terms in classes.items()
    }
    return classes, labels


def pretrain_vision(system: CrashVLM, frames: np.ndarray, seeds: range, epochs: int, batch_size: int = 64) -> None:
    """Let the vision tower name the fields frame by frame, before the language model is there to confuse it.

    Of each scene the last frame and another one are shown. The last tenth of the scenes is held out and printed.
    """
    classes, labels = frame_labels(seeds)
    heads = FrameHeads(system.model.config.vision_config.hidden_size, classes)
    tower = system.model.model.vision_tower
    parameters = [*tower.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.05)
    kept = len(seeds) * 9 // 10
    steps = epochs * (kept // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-3, total_steps=steps, pct_start=0.1)

    def look(rows: np.ndarray, train: bool) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        other = np.random.randint(0, NUM_FRAMES - 1, len(rows)) if train else np.zeros(len(rows), int)
        both = np.concatenate([frames[rows, NUM_FRAMES - 1], frames[rows, other]])
        pixels = torch.from_numpy(both).permute(0, 3, 1, 2).float() / 255
        pixels = jitter(pixels) if train else pixels
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        with torch.autocast("cpu", torch.bfloat16):
            patches = tower((pixels - mean) / std).last_hidden_state[:, 1:]
        logits = heads(patches)
        ignored = torch.full((len(rows),), -100)
        target = {
            name: torch.cat([label[rows], label[rows] if name in EVERY_FRAME else ignored])
            for name, label in labels.items()
        }
        return sum(F.cross_entropy(logits[name], target[name]) for name in classes), logits, target  # type: ignore[return-value]

    for epoch in range(epochs):
        order = np.random.permutation(kept)
        for start in range(0, kept - batch_size + 1, batch_size):
            loss, _, _ = look(np.sort(order[start : start + batch_size]), train=True)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
        right, total = dict.fromkeys(classes, 0), dict.fromkeys(classes, 0)
        with torch.no_grad():
            for start in range(kept, len(seeds), 200):
                _, logits, target = look(np.arange(start, min(start + 200, len(seeds))), train=False)
                for name in classes:
                    asked = target[name] != -100
                    right[name] += int((logits[name].argmax(1) == target[name])[asked].sum())
                    total[name] += int(asked.sum())
        shares = {name: round(right[name] / total[name], 2) for name in classes}
        print(f"vision epoch {epoch}: loss {float(loss):.2f}, held-out frames {shares}", flush=True)


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
    parser.add_argument("--vision_epochs", type=int, default=12, help="epochs of the vision tower alone, on frames")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--start_from", type=Path, help="model folder to go on from; unset: random weights")
    options = parser.parse_args()
    start = time.perf_counter()
    seed_everything(0)
    seeds = range(FIRST_SEED, FIRST_SEED + options.scenes)
    test_seeds = range(seeds.stop, seeds.stop + options.test_scenes)
    frames, test_frames = render_all(seeds, options.cache), render_all(test_seeds, options.cache)
    work = options.cache / "model"
    if options.start_from:
        shutil.copytree(options.start_from, work, dirs_exist_ok=True)
    else:
        write_empty_model(work, training_texts(seeds[:6000]))
    rendered = time.perf_counter() - start
    rates = {f"lr_{tower}": options.lr for tower in ("vision", "projector", "language")}
    system = CrashVLM(work, "weights", "math", **rates, weight_decay=0.05, max_new_tokens=256, embedder=None)
    pretrain_vision(system, frames, seeds, options.vision_epochs)
    system.model.save_pretrained(work)
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
        "command": f"python tools/train_demo_base.py --scenes {options.scenes} --epochs {options.epochs} "
        f"--vision_epochs {options.vision_epochs}",
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
