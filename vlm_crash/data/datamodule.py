"""Wiring: which samples each stage sees, and their loaders."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Sampler

from vlm_crash.data.batching import Packs, check_batching, train_sampler
from vlm_crash.data.cache_room import check_room_once
from vlm_crash.data.clip_sources import each_once, limit_per_event, loose_clips
from vlm_crash.data.collate import Batch, Collator, PackCollator
from vlm_crash.data.conversation import read_question, told_sampling
from vlm_crash.data.dataset import ClipDataset, ModelInputs, SampleRecipe
from vlm_crash.data.frame_options import UNSET, FrameOptions, sampling_of
from vlm_crash.data.option_checks import check_leasts, check_together, check_words
from vlm_crash.data.prepared import load_prepared
from vlm_crash.data.quarantine import Checks, in_use, no_clips
from vlm_crash.data.recordings import ScanPlan
from vlm_crash.data.remaining import Remaining
from vlm_crash.data.same_clips import check_same_everywhere, clips_seen, record_of
from vlm_crash.data.sampler import SharedSampler
from vlm_crash.data.told_events import warn_of_told_events
from vlm_crash.data.vocabularies import observed_vocabularies
from vlm_crash.data.workers import heed_parent_alone
from vlm_crash.schema.fields import Schema, load_schema
from vlm_crash.schema.mirror import mirrored
from vlm_crash.schema.records import VideoSample
from vlm_crash.video.augmentation import PLAIN, Augmentation
from vlm_crash.video.frame_cache import CacheSettings, FrameCache
from vlm_crash.video.guarded import CLIP_TIMEOUT_S
from vlm_crash.video.reader import check_reader

log = logging.getLogger(__name__)


class CrashDataModule(LightningDataModule):
    """Clips and their annotations, as batches.

    Args:
        folder: dataset made by `vlm_crash prepare` (or the old scripts' JSONL folder); training needs it.
        split: split of `folder` that `predict` answers: train, val or test.
        clips: files, folders or lists (.txt, .csv, .jsonl, .parquet) to predict, whose event is not known or stands in
            the list.
        crash_dir: folder of crash clips to predict.
        nearmiss_dir: folder of near-miss clips to predict.
        event_dirs: folders to predict by event name, for schemas with other events than crash and nearmiss.
        num_videos: most clips per event to predict; 0: all. Unset: 10 of each event's folder, and all of `clips` or
            `folder`.
        num_frames: frames per clip. Unset: what the model folder says, else 32.
        frame_rule: which frames: middle (of equal intervals, as in VideoChat-Flash's training), card (as the model
            card of InternVideo2_5_Chat_8B takes them), fps (so many a second), duration (more of longer clips, as
            VideoChat-Flash counts them) or event (half of them within a second around the largest change of motion).
            Unset: what the model folder says, else middle.
        frames: settings of the rule, and the part of each clip that is looked at. Unset: what the model folder says.
        augment: random changes of training clips, off by default.
        batch_size: clips per batch and process.
        batching: how training clips of several lengths make a batch: padded (to the longest), grouped (the same, of
            clips of similar length) or packed (as many as pack_tokens holds, in one row without padding).
        pack_tokens: most tokens of a packed batch; unset: batch_size times those of the longest clip.
        num_workers: processes that read clips.
        reader: what decodes the clips: auto (right on all that can be read), pyav (what auto takes), decord (as the old
            scripts read them, wrong on some) or torchcodec; the last two where they are installed.
        clip_timeout_s: most seconds to read a clip, of a recording (--scan) from one frame to the next; what takes
            longer is failed, as one that cannot be read (null or 0: no limit).
        on_bad_clip: what training does at a clip that cannot be read: raise (stop and name it) or skip (leave it out,
            on all processes, and say so after each epoch). Scores are never taken over fewer clips.
        prompt: question to ask: full (lists all fields and terms), short, or dataset (the JSONL's human turn).
            Unset: what the model folder says, else full.
        prompt_file: UTF-8 text file with a question of your own wording, asked instead.
        preset: how the frames stand in the prompt: training (duration, then a line a frame; as VideoChat-Flash's
            training), card (a line a frame, as the model card) or demo (as the demo's base model knows it). Unset:
            what the model folder says, else training.
        template: chat template around the turns: internvl2_5, internlm2-chat or Hermes-2. Unset: what the model folder
            says, else internvl2_5.
        tell_event: give the event away in the question, for labs that only want the fields.
        blank_frames: show black frames instead of the clips (a blind baseline: what is guessed without looking).
        schema: YAML with events and fields; unset: the crash and near-miss form.
        cache: keep decoded frames on disk, so that each clip is decoded once; unset: it is decoded each time.
        seed: order of the training clips.
    """

    #: Which of the samples are left to predict, as indices; None: all (callbacks/predictions.py sets it).
    choose_left: Callable[[Sequence[VideoSample]], np.ndarray] | None = None

    #: Set where clips are scanned as recordings: what of them is read next.
    scan: ScanPlan | None = None
    #: By place, training clips found unreadable, for all processes that read (callbacks/left_out.py); None: stop there.
    left_out: torch.Tensor | None = None
    #: (epoch, clips of it that all processes have seen) where a checkpoint was restored.
    resumed: tuple[int, int] = (0, 0)

    # More than ten parameters: this constructor is the command line's --data section.
    def __init__(  # noqa: PLR0913
        self,
        folder: Path | None = None,
        split: str = "test",
        clips: list[Path] | Path | None = None,
        crash_dir: Path | None = None,
        nearmiss_dir: Path | None = None,
        event_dirs: dict[str, Path] | None = None,
        num_videos: int | None = None,
        num_frames: int | None = None,
        frame_rule: str | None = None,
        frames: FrameOptions = UNSET,
        augment: Augmentation = PLAIN,
        batch_size: int = 1,
        batching: str = "padded",
        pack_tokens: int | None = None,
        num_workers: int = 2,
        reader: str = "auto",
        clip_timeout_s: float | None = CLIP_TIMEOUT_S,
        on_bad_clip: str = "raise",
        prompt: str | None = None,
        prompt_file: Path | None = None,
        preset: str | None = None,
        template: str | None = None,
        tell_event: bool = False,
        blank_frames: bool = False,
        schema: Path | None = None,
        cache: CacheSettings | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_reader(reader)
        check_words(split=split, batching=batching, on_bad_clip=on_bad_clip)
        check_leasts(1, batch_size=batch_size, pack_tokens=pack_tokens, num_frames=num_frames)
        check_leasts(0, num_workers=num_workers, clip_timeout_s=clip_timeout_s, seed=seed)
        check_together(batching, pack_tokens, prompt, prompt_file)
        self.folder, self.split, self.num_videos = folder, split, num_videos
        self.clips = [clips] if isinstance(clips, Path | str) else list(clips or [])
        named = {"crash": crash_dir, "nearmiss": nearmiss_dir}
        self.event_dirs = {**{event: path for event, path in named.items() if path}, **(event_dirs or {})}
        # What is given here goes before what the model folder says; a given prompt also before its own wording.
        self.given: dict[str, Any] = {
            "prompt": prompt,
            "question": None if prompt_file is None else read_question(prompt_file),
            "preset": preset,
            "template": template,
        }
        self.given_frames, self.augment = (num_frames, frame_rule, frames), augment
        self.batch_size, self.num_workers, self.clip_timeout_s = batch_size, num_workers, clip_timeout_s
        self.batching, self.pack_tokens, self.reader = batching, pack_tokens, reader
        self.on_bad_clip = on_bad_clip
        self.tell_event, self.blank_frames = tell_event, blank_frames
        self.schema: Schema = load_schema(schema)
        self.seed, self.cache = seed, cache
        self._begin()

    def _begin(self) -> None:
        """What is known later."""
        #: The schema with its open fields filled with the dataset's terms, as soon as a dataset is read.
        self.dataset_schema: Schema = self.schema
        self.recipe: SampleRecipe | None = None
        self.samples: dict[str, Any] = {}
        self.resumed_kind: dict[str, Any] = {}
        #: Most tokens of each training clip; unmeasured (0) where batches do not ask for them.
        self.lengths: list[int] = []

    def connect(self, inputs: ModelInputs) -> None:
        """Say which model is fed; the command line does this once, before any loader is made."""
        if self.given["prompt"] is not None:
            inputs = replace(inputs, question=None)
        inputs = replace(inputs, **{name: value for name, value in self.given.items() if value is not None})
        told = {"num_frames": inputs.num_frames, "rule": inputs.frame_rule}
        sampling = sampling_of(*self.given_frames, {**told, **(inputs.frames or {})})
        words = told_sampling(sampling.rule, inputs.frame_rule, inputs.told_sampling)
        inputs = replace(inputs, told_sampling=words)
        self.recipe = SampleRecipe(
            schema=self.schema,
            tokenizer=inputs.conversation_tokenizer,
            sampling=sampling,
            image_size=inputs.image_size,
            prompt=inputs.prompt,
            tell_event=self.tell_event,
            blank_frames=self.blank_frames,
            question=inputs.question,
            clip_timeout_s=self.clip_timeout_s,
            reader=self.reader,
            cache=None if self.cache is None else FrameCache(self.cache),
        )

    def setup(self, stage: str) -> None:
        """Find the samples of a stage: fit, validate, test or predict."""
        if self.recipe is not None:  # in the other stages a config of fit asks for nothing that could not be
            augmentation = self.augment if stage == "fit" and self.augment.acts else None
            self.recipe = replace(self.recipe, augmentation=augmentation)
        if stage == "predict":
            self.samples["predict"] = self._predict_samples()  # their room is checked when it is known which are left
            return
        if self.folder is None:
            raise ValueError("there is nothing to train on or score; set --data.folder to what `prepare` wrote")
        splits = load_prepared(self.folder, self.schema)
        terms = observed_vocabularies([sample for samples in splits.values() for sample in samples], self.schema)
        self.dataset_schema = self.schema.with_vocabularies({name: seen for name, seen in terms.items() if seen})
        stages = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}
        all_of = Checks.of(self.folder).marked({name: splits[name] for name in stages[stage]})
        self.samples |= {split: in_use(marked) for split, marked in all_of.items()}
        if self.trainer is not None and self.trainer.world_size > 1:
            check_same_everywhere(self.samples, self.trainer.strategy)
        for split, marked in all_of.items():
            log.info("%s: %d clips of %s", split, len(self.samples[split]), self.folder)
            if not self.samples[split] and (split != "val" or stage == "validate"):
                raise ValueError(no_clips(self.folder, split, marked))
        if stage == "fit":
            self._check_monitors()
        self._check_processes()
        # The clips that are answered in validation come first: every event must be among them.
        self.samples = {name: _alternating(samples) for name, samples in self.samples.items()}
        check_room_once(self.trainer, self.recipe, self.samples)
        if stage == "fit":
            self._measure()
            if self.on_bad_clip == "skip":
                self.left_out = torch.zeros(len(self.samples["train"]), dtype=torch.bool).share_memory_()
        if self.recipe is not None and self.recipe.prompt == "dataset" and self.recipe.question is None:
            warn_of_told_events(self.samples, self.schema)

    def _measure(self) -> None:
        """Lengths of the training clips, from their texts, where batches are made by them."""
        samples = self.samples["train"]
        if self.recipe is not None and self.recipe.flips:
            unsure = sum(mirrored(self.schema, sample) is None for sample in samples)
            log.info("%d of %d training clips can be mirrored", len(samples) - unsure, len(samples))
        if self.batching == "padded":
            self.lengths = [0] * len(samples)
            return
        assert self.recipe is not None, "connect() comes before setup()"
        self.lengths = self.recipe.lengths(samples)
        self.pack_tokens = self.pack_tokens or self.batch_size * max(self.lengths)
        check_batching(self.batching, samples, self.lengths, (self.batch_size * self._place()[1], self.pack_tokens))

    def _check_monitors(self) -> None:
        """A checkpoint cannot be chosen by a number of a validation that there is not."""
        if self.trainer is None or (self.samples["val"] and self.trainer.limit_val_batches):
            return
        monitors = {getattr(callback, "monitor", None) for callback in self.trainer.callbacks}  # type: ignore[attr-defined]
        watched = sorted(name for name in monitors if name and name.startswith("val/"))
        if watched:
            why = "--trainer.limit_val_batches is 0" if self.samples["val"] else f"{self.folder} has no val clips"
            raise ValueError(
                f"checkpoints are chosen by {', '.join(watched)}, and there is no validation: {why}; run `prepare` "
                "with a share for val, or set --trainer.callbacks null to keep the last checkpoint"
            )

    def _check_processes(self) -> None:
        """Scores are gathered from all processes, so each needs a clip (in prediction one may have none)."""
        world = self.trainer.world_size if self.trainer else 1
        for split in ("val", "test"):
            num_clips = len(self.samples.get(split, ()))
            if 0 < num_clips < world:
                raise ValueError(
                    f"{self.folder} has {num_clips} {split} clips for {world} processes; "
                    f"set --trainer.devices (and --trainer.num_nodes) to {num_clips} or fewer in all"
                )

    def _predict_samples(self) -> Sequence[VideoSample]:
        unknown = sorted(set(self.event_dirs) - set(self.schema.event_names))
        if unknown:
            raise ValueError(
                f"there are clips for the events {unknown}, the schema has {list(self.schema.event_names)}; "
                "give --data.event_dirs and --data.schema that fit together"
            )
        if self.folder is not None and (self.clips or self.event_dirs):
            raise ValueError(
                "--data.folder and loose clips are both given, and only one can be predicted; "
                "leave out --data.folder, or --data.clips, --data.crash_dir, --data.nearmiss_dir and --data.event_dirs"
            )
        if self.clips or self.event_dirs:
            return loose_clips(self.event_dirs, map(Path, self.clips), self.num_videos, self.schema)
        if self.folder is None:
            raise ValueError(
                "there is nothing to predict; set --data.crash_dir, --data.nearmiss_dir, --data.clips or --data.folder"
            )
        samples = Checks.of(self.folder).mark(load_prepared(self.folder, self.schema)[self.split])
        if not samples:
            raise ValueError(f"the split {self.split} of {self.folder} has no clips; set --data.split to another")
        # A line is known by its clip's path, from whatever folder the command was given.
        samples = [replace(sample, path=sample.path.absolute()) for sample in samples]
        return limit_per_event(each_once(samples), self.num_videos)

    def _loader(self, name: str) -> DataLoader[Batch]:
        assert self.recipe is not None, "connect() comes before the loaders"
        train, predict = name == "train", name == "predict"
        collate = Collator(self.recipe.tokenizer.end_token_id, "left" if predict else "right")
        on_unreadable = self.on_bad_clip if train else "fail" if predict else "raise"
        left_out = self.left_out if train else None
        augment_seed = self.seed if train else None
        dataset = ClipDataset(self.samples[name], self.recipe, not predict, on_unreadable, left_out, augment_seed)
        is_packed = train and self.batching == "packed"
        in_lists = is_packed or predict
        return DataLoader(
            Packs(dataset) if in_lists else dataset,
            batch_size=None if in_lists else self.batch_size,
            sampler=self._sampler(dataset, name),
            num_workers=self.num_workers,
            persistent_workers=train and self.num_workers > 0,
            worker_init_fn=heed_parent_alone,
            collate_fn=PackCollator(self.pack_tokens or 0) if is_packed else collate,
            # Its own, or making an iterator would draw from the generator that a resumed run restores.
            generator=torch.Generator().manual_seed(self.seed),
        )

    def _sampler(self, dataset: ClipDataset, name: str) -> Sampler | None:
        """Every clip once; also where processes share the work (Lightning's own sampler repeats some to be even)."""
        if name == "train":
            return self._train_sampler()
        rank, world = self._place()
        if name == "predict":
            samples = self.samples[name]
            left = np.arange(len(samples)) if self.choose_left is None else self.choose_left(samples)
            if len(left):
                check_room_once(self.trainer, self.recipe, {name: samples})
            return Remaining(left, self.batch_size, world, rank)
        return SharedSampler(dataset, world, rank) if world > 1 else None

    def _train_sampler(self) -> SharedSampler:
        rank, world = self._place()
        options: dict[str, Any] = {"num_replicas": world, "rank": rank, "seed": self.seed}
        options |= {"batch_size": self.batch_size, "resumed": self.resumed, "stamped": self.augment.acts}
        return train_sampler(self.batching, self.lengths, self.pack_tokens or 0, self.resumed_kind, options)

    def _place(self) -> tuple[int, int]:
        """Number of this process, and how many there are."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    @property
    def num_train_batches(self) -> int:
        """Batches of an epoch on each process."""
        return self._train_sampler().num_batches

    def state_dict(self) -> dict[str, Any]:
        """Where the run is in the epoch, in clips, so that a run on another number of processes can go on there."""
        if self.trainer is None or "train" not in self.samples:
            return {}
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress
        done = progress.current.processed
        if done < self.num_train_batches:
            # Gradients of a step that is half accumulated are not saved: its clips are seen again.
            done -= done % self.trainer.accumulate_grad_batches
        sampler = self._train_sampler()
        sampler.set_epoch(self.trainer.current_epoch)
        clips = sampler.clips_after(done)
        place = {"epoch": sampler.epoch, "clips": clips, "batches": done, "kind": sampler.kind}
        return {**place, "training_clips": record_of(self.samples["train"])}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if "train" not in self.samples:
            return  # only a training goes on
        self.resumed = (state_dict["epoch"], clips_seen(state_dict, self.samples["train"]))
        self.resumed_kind = state_dict.get("kind", {"batching": "padded"})

    def batches_of(self, state_dict: dict[str, Any]) -> int:
        """Batches of this run, on each process, that a place in the epoch stands for."""
        sampler = self._train_sampler()
        sampler.set_epoch(state_dict["epoch"])
        return sampler.batches_after(clips_seen(state_dict, self.samples["train"]))

    def train_dataloader(self) -> DataLoader[Batch]:
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        if self.scan is None:
            return self._loader("predict")
        assert self.recipe is not None, "connect() comes before the loaders"
        return self.scan.loader(self.samples["predict"], self.recipe, self.batch_size, self.num_workers)


def _alternating(samples: list[VideoSample]) -> list[VideoSample]:
    """The same samples with the events taking turns, each event's in its own order."""
    seen: Counter[str | None] = Counter()
    places = []
    for sample in samples:
        places.append(seen[sample.event])
        seen[sample.event] += 1
    return [samples[index] for index in sorted(range(len(samples)), key=lambda index: places[index])]
