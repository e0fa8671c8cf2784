"""Train the small base model that ships with the package, on rendered scenes that the demo never shows.

    python tools/train_demo_base.py --out vlm_crash/demo/base --scenes 16000 --test_scenes 300 \\
        --epochs 3 --vision_epochs 9

That is what the shipped weights were made with (vlm_crash/demo/base/base.json).

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
from transformers.modeling_outputs import BaseModelOutputWithPooling

from vlm_crash.data.collate import Collator, Item
from vlm_crash.data.conversation import question, user_turn
from vlm_crash.data.dataset import ModelInputs
from vlm_crash.demo.base_model import IMAGE_SIZE, NUM_FRAMES, write_empty_model
from vlm_crash.demo.draw import render_frame
from vlm_crash.demo.scene import sample_scene
from vlm_crash.demo.world import Scene
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
    """Scenes as items; what the vision tower saw of them stands where the pixels would."""

    seen: np.ndarray
    seeds: range
    inputs: ModelInputs

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
        return Item(sample, tokens.input_ids_S, tokens.labels_S, torch.from_numpy(self.seen[index]).float())


def pixel_values(frames_NSS3: np.ndarray, train: bool) -> Tensor:
    """uint8 frames as the vision tower wants them; in training shifted by up to 4 pixels, and brighter or darker.

    One pass over the floats: on two cores this must not cost more than the tower itself.
    """
    gain, bias = 1.0, 0.0
    if train:
        shift_y, shift_x = np.random.randint(-4, 5, 2)
        rows = np.clip(np.arange(IMAGE_SIZE) + shift_y, 0, IMAGE_SIZE - 1)
        columns = np.clip(np.arange(IMAGE_SIZE) + shift_x, 0, IMAGE_SIZE - 1)
        frames_NSS3 = frames_NSS3[:, rows][:, :, columns]
        gain, bias = np.random.uniform(0.9, 1.1), np.random.uniform(-0.05, 0.05)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    frames_N3SS = torch.from_numpy(frames_NSS3).permute(0, 3, 1, 2)
    return torch.addcmul((bias - mean) / std, frames_N3SS.float(), gain / 255 / std)


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


#: What only the outcome shows: nothing to learn from a near miss.
OUTCOMES = {"Other_most_damaged_area", "Crash_severity", "Total_number_of_vehicles"}


def visible_facts(scene: Scene) -> dict[str, str]:
    """What there is to see in a scene, in finer terms than the form's: mirror images are not one thing to see."""
    texts = {field.name for field in load_schema().fields if field.kind == "text"}
    facts = {name: term for name, term in scene.truth.items() if name not in texts}
    if scene.event != "crash":
        facts = {name: term for name, term in facts.items() if name not in OUTCOMES}
    look = scene.look
    side = -1 if look.mirrored else 1
    facts["event"] = scene.event
    facts["encounter"] = f"{scene.scenario.name} {side}"
    bend = side * look.bend if facts["Road_flat"] == "Curve" else 0.0
    facts["road_form"] = f"{np.sign(look.grade):.0f} {np.sign(bend):.0f}"
    lane = round(scene.motion.ego_x_start / look.lane_width + (int(facts["Lanes"]) - 1) / 2)
    facts["lane"] = f"{facts['Lanes']} {lane} {side} {look.two_way}"
    return facts


class ClipHeads(nn.Module):
    """One query per fact that looks at the patches of a few frames: teaches the vision tower what to look for."""

    def __init__(self, hidden_size: int, classes: dict[str, list[str]]) -> None:
        super().__init__()
        layer = nn.TransformerDecoderLayer(hidden_size, 5, 2 * hidden_size, 0.0, batch_first=True, norm_first=True)
        self.decoder = nn.TransformerDecoder(layer, 2, nn.LayerNorm(hidden_size))
        self.frame_D = nn.Parameter(0.02 * torch.randn(NUM_FRAMES, 1, hidden_size))
        self.queries_KD = nn.Parameter(torch.randn(len(classes), hidden_size))
        self.heads = nn.ModuleDict({name: nn.Linear(hidden_size, len(terms)) for name, terms in classes.items()})

    def forward(self, patches_BFPD: Tensor, frames_F: list[int]) -> dict[str, Tensor]:
        keys_BSD = (patches_BFPD + self.frame_D[frames_F]).flatten(1, 2)
        seen_BKD = self.decoder(self.queries_KD.expand(len(keys_BSD), -1, -1), keys_BSD)
        return {name: head(seen_BKD[:, k].float()) for k, (name, head) in enumerate(self.heads.items())}


def fact_labels(seeds: range) -> tuple[dict[str, list[str]], dict[str, Tensor]]:
    """Terms per fact, and per fact the class of each scene (-100 where it cannot be seen)."""
    facts = [visible_facts(sample_scene(seed)) for seed in seeds]
    names = sorted({name for found in facts for name in found})
    classes = {name: sorted({found[name] for found in facts if name in found}) for name in names}
    labels = {
        name: torch.tensor([terms.index(found[name]) if name in found else -100 for found in facts])
        for name, terms in classes.items()
    }
    return classes, labels


def pretrain_vision(system: CrashVLM, frames: np.ndarray, seeds: range, epochs: int, batch_size: int = 48) -> None:
    """Let the vision tower tell the facts from three frames, before the language model is there to confuse it.

    The last twentieth of the scenes is held out; its shares of right answers are printed after each epoch.
    """
    classes, labels = fact_labels(seeds)
    heads = ClipHeads(system.model.config.vision_config.hidden_size, classes)
    tower = system.model.model.vision_tower
    parameters = [*tower.parameters(), *heads.parameters()]
    layers = [*tower.encoder.parameters(), *heads.decoder.parameters()]
    matrices = [parameter for parameter in layers if parameter.ndim == 2]
    chosen_before = {id(parameter) for parameter in matrices}
    others = [parameter for parameter in parameters if id(parameter) not in chosen_before]
    optimizers = [
        torch.optim.Muon(matrices, lr=2e-3, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=1.5e-3, weight_decay=0.05),
    ]
    kept = len(seeds) * 19 // 20
    steps = epochs * (kept // batch_size)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min((step + 1) / 100, 1.0) * min(1.0, 2 * (1 - step / steps) + 1e-3)
        )
        for optimizer in optimizers
    ]

    def look(rows: np.ndarray, chosen: list[int], train: bool) -> dict[str, Tensor]:
        pixels = pixel_values(frames[rows][:, chosen].reshape(-1, *FRAME_SHAPE[1:]), train)
        with torch.autocast("cpu", torch.bfloat16):
            patches = tower(pixels).last_hidden_state[:, 1:]
            return heads(patches.unflatten(0, (len(rows), len(chosen))), chosen)

    for epoch in range(epochs):
        order = np.random.permutation(kept)
        for start in range(0, kept - batch_size + 1, batch_size):
            rows = np.sort(order[start : start + batch_size])
            logits = look(rows, [np.random.randint(0, 4), np.random.randint(4, 7), 7], train=True)
            loss = torch.stack([F.cross_entropy(logits[name], labels[name][rows]) for name in classes]).sum()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(others, 1.0)
            for optimizer, schedule in zip(optimizers, schedules, strict=True):
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
        right, total = dict.fromkeys(classes, 0), dict.fromkeys(classes, 0)
        with torch.no_grad():
            for start in range(kept, len(seeds), 100):
                rows = np.arange(start, min(start + 100, len(seeds)))
                for name, logit in look(rows, [2, 5, 7], train=False).items():
                    asked = labels[name][rows] != -100
                    right[name] += int((logit.argmax(1) == labels[name][rows])[asked].sum())
                    total[name] += int(asked.sum())
        shares = {name: round(right[name] / total[name], 2) for name in classes}
        print(f"vision epoch {epoch}: loss {loss.item():.2f}, held-out scenes {shares}", flush=True)
        # A stopped run can be gone on from: --start_from CACHE/model.
        system.model.save_pretrained(Path(system.path))


class Seen(nn.Module):
    """Stands in for the vision tower while the language model learns: what it is given has been seen already."""

    def forward(self, pixel_values: Tensor, **_: object) -> BaseModelOutputWithPooling:
        return BaseModelOutputWithPooling(last_hidden_state=pixel_values)


@torch.no_grad()
def see_all(system: CrashVLM, frames: np.ndarray) -> np.ndarray:
    """Outputs of the vision tower for all frames [N, F, 1 + P, D] float16."""
    tower = system.model.model.vision_tower
    seen = []
    for start in range(0, len(frames), 16):
        pixels = pixel_values(frames[start : start + 16].reshape(-1, *FRAME_SHAPE[1:]), train=False)
        with torch.autocast("cpu", torch.bfloat16):
            hidden = tower(pixels).last_hidden_state
        seen.append(hidden.half().unflatten(0, (-1, NUM_FRAMES)).numpy())
    return np.concatenate(seen)


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
    if options.vision_epochs:
        pretrain_vision(system, frames, seeds, options.vision_epochs)
        system.model.save_pretrained(work)
    train_language(system, (frames, seeds), (test_frames, test_seeds), options)
    scores = {name: float(value) for name, value in system.trainer.callback_metrics.items()}
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


def train_language(
    system: CrashVLM,
    train: tuple[np.ndarray, range],
    test: tuple[np.ndarray, range],
    options: argparse.Namespace,
) -> None:
    """Teach the projector and the language model the form, the vision tower's part done once beforehand."""
    tower = system.model.model.vision_tower
    trainer = Trainer(
        accelerator="cpu", precision="bf16-mixed", max_epochs=options.epochs, gradient_clip_val=1.0, logger=False,
        default_root_dir=options.cache, enable_checkpointing=False, num_sanity_val_steps=0, log_every_n_steps=10,
        enable_progress_bar=False, callbacks=[Lines()],
    )  # fmt: skip
    collate = Collator(system.conversation.end_token_id)
    train_loader, test_loader = (
        DataLoader(
            Scenes(see_all(system, frames), seeds, system.inputs),
            batch_size=options.batch_size,
            shuffle=is_train,
            num_workers=1,
            persistent_workers=True,
            collate_fn=collate,
        )
        for (frames, seeds), is_train in ((train, True), (test, False))
    )
    print("all frames seen; the language model begins", flush=True)
    system.model.model.vision_tower = Seen()
    system.num_validation_answers = options.test_scenes
    trainer.fit(system, train_loader, test_loader)
    system.model.model.vision_tower = tower


def training_texts(seeds: range) -> list[str]:
    """What the tokenizer learns from: responses, and the questions around them."""
    schema = load_schema()
    texts = []
    for seed in seeds:
        scene = sample_scene(seed)
        texts.append(render(schema, Annotation.of(schema, scene.event, scene.values)))
    asked = [user_turn(question(schema, "short"), NUM_FRAMES, tenths / 10, "demo") for tenths in range(30, 90)]
    return texts + asked * 10


if __name__ == "__main__":
    main()
