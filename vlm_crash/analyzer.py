"""The Python face: clips in, records out.

Enters: a model folder, then paths of clips. Leaves: a Prediction for each clip, in the clips' order. Must hold: the
answers are those of `python -m vlm_crash predict` for the same folder; a clip that cannot be read is a Prediction with
status "failed", never an exception; no more clips are held than a batch and the one that is read beside it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any, cast, overload

import torch

from vlm_crash.data.clip_store import loose_sample
from vlm_crash.data.collate import Batch, Collator
from vlm_crash.data.datamodule import CrashDataModule
from vlm_crash.data.dataset import ClipDataset, SampleRecipe
from vlm_crash.lightning_module import CrashVLM
from vlm_crash.models.fitted_form import check_form
from vlm_crash.models.internvl import cast_parameters
from vlm_crash.models.quantized import check_stage, loaded_dtype
from vlm_crash.schema.records import Prediction, VideoSample

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
Clip = str | PathLike[str]


class CrashAnalyzer:
    """Answers the crash form for clips: `CrashAnalyzer.from_pretrained(folder)(["a.mp4", "b.mp4"])`.

    Args:
        module: the system, on its device, in its dtype.
        recipe: how a clip becomes the model's prompt.
    """

    def __init__(self, module: CrashVLM, recipe: SampleRecipe) -> None:
        self.module = module.eval()
        self.recipe = recipe
        self.module.conversation = recipe.tokenizer
        #: One thread, which keeps its reader process, and the process that made it: a fork has no threads.
        self._reader: tuple[int, ThreadPoolExecutor] | None = None

    @classmethod
    def from_pretrained(
        cls,
        folder: Clip,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        decoding: str | None = None,
        num_frames: int | None = None,
        max_new_tokens: int | None = None,
        vision_chunk: int | None = None,
        attention: str | None = None,
        schema: Clip | None = None,
        load_in: str | None = None,
        prompt: str | None = None,
        frame_rule: str | None = None,
    ) -> CrashAnalyzer:
        """Load a model folder.

        Args:
            folder: in transformers' or the original OpenGVLab layout, or OWNER/NAME on the Hugging Face hub.
            device: cpu, cuda or cuda:1, say; None: cuda where there is one.
            dtype: float32, float16 or bfloat16; None: float16 on a GPU, float32 elsewhere, as `predict` takes them.
            decoding: best_term, greedy or free (--model.decoding); None: best_term.
            num_frames: frames of a clip; None: what the folder says, else 32.
            max_new_tokens: most tokens of each text field, or of a free answer; None: 128, or 1024.
            vision_chunk: frames that go through the vision tower at once; None: all of a batch.
            attention: SDPA kernel; None: auto, that is what works here.
            schema: YAML with events and fields; None: the crash and near-miss form.
            load_in: matrices in fewer bits, 8bit or 4bit on a GPU, int8 on a CPU; None: as dtype says.
            prompt: full or short (--data.prompt); None: what the folder says.
            frame_rule: which frames are looked at (--data.frame_rule); None: what the folder says.

        Raises:
            ValueError: no model folder, or a setting that cannot be; it says what is allowed.
        """
        where = _device(device)
        kind = _dtype(dtype, where)
        path = None if schema is None else Path(schema)
        asked = {
            "decoding": decoding, "max_new_tokens": max_new_tokens, "vision_chunk": vision_chunk,
            "attention": attention or "auto", "load_in": load_in,
        }  # fmt: skip
        given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
        module = CrashVLM(Path(folder), embedder=None, schema=path, **given)
        check_form(module.fitted_schema, module.schema, path, module.path)
        if load_in is None:
            cast_parameters(module.to(device=where), kind)
        elif kind != loaded_dtype(load_in, kind):
            raise ValueError(f"load_in={load_in!r} is read in {loaded_dtype(load_in, kind)}; leave dtype out")
        else:
            check_stage(load_in, "predict", where)
            module.to(device=where)
        data = CrashDataModule(num_frames=num_frames, frame_rule=frame_rule, prompt=prompt, schema=path)
        data.connect(module.inputs)
        assert data.recipe is not None
        if data.recipe.prompt == "dataset" and data.recipe.question is None:
            raise ValueError(
                "prompt='dataset' takes each clip's question from a prepared folder, and loose clips have none; set "
                "prompt='full' or prompt='short'"
            )
        return cls(module, data.recipe)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.module.parameters()).device

    @overload
    def __call__(self, clips: Clip, batch_size: int = 1) -> Prediction: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, clips: Iterable[Clip], batch_size: int = 1) -> list[Prediction]: ...

    def __call__(self, clips: Clip | Iterable[Clip], batch_size: int = 1) -> Prediction | list[Prediction]:
        """The record of a clip, or a list of those of several, in their order.

        Args:
            clips: a path, or several.
            batch_size: clips that the model answers at once.

        Raises:
            ValueError: something else than paths of files, or a batch of none.
        """
        if isinstance(clips, str | PathLike):
            return self([clips], batch_size)[0]
        _check(clips, batch_size)
        return list(self._stream(iter([_sample(clip) for clip in clips]), batch_size))

    def stream(self, clips: Iterable[Clip], batch_size: int = 1) -> Iterator[Prediction]:
        """The same one by one, for more clips than fit into memory: the next batch is read while one is answered.

        Args:
            clips: paths; of a generator no more are taken than the batch that is answered and the next one.
            batch_size: clips that the model answers at once.

        Raises:
            ValueError: as __call__ says; at once for what is wrong with the arguments themselves.
        """
        if isinstance(clips, str | PathLike):
            raise ValueError(f"clips={clips!r} is one path; give an iterable of paths, or call the analyzer with it")
        _check(clips, batch_size)
        return self._stream(map(_sample, clips), batch_size)

    def _stream(self, clips: Iterator[VideoSample], batch_size: int) -> Iterator[Prediction]:
        reader, samples = self._reading_thread(), list(islice(clips, batch_size))
        reading = reader.submit(self._batch, samples)
        while samples:
            batch, answered = reading.result(), samples
            samples = list(islice(clips, batch_size))
            if samples:
                reading = reader.submit(self._batch, samples)
            yield from self._answered(batch, answered)

    def _reading_thread(self) -> ThreadPoolExecutor:
        """The same for every call: its reader process takes a second to start."""
        if self._reader is None or self._reader[0] != os.getpid():
            self._reader = (os.getpid(), ThreadPoolExecutor(1, thread_name_prefix="clips"))
        return self._reader[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_reader": None}  # a copy has its own

    def _batch(self, samples: list[VideoSample]) -> Batch:
        dataset = ClipDataset(samples, self.recipe, supervised=False, on_unreadable="fail")
        collate = Collator(self.recipe.tokenizer.end_token_id, "left")
        return collate([dataset[index] for index in range(len(samples))])

    def _answered(self, batch: Batch, samples: list[VideoSample]) -> Iterator[Prediction]:
        """The batch's predictions; a batch has its failed clips apart."""
        with torch.inference_mode():
            found = cast(list[Prediction], self.module.predict_step(batch.to(self.device), 0))  # of clips, no windows
        order = [*(item.sample for item in batch.failed), *batch.samples]
        by_sample = {id(sample): prediction for sample, prediction in zip(order, found, strict=True)}
        return (by_sample[id(sample)] for sample in samples)


def _check(clips: object, batch_size: object) -> None:
    if isinstance(clips, bytes) or not isinstance(clips, Iterable):
        raise ValueError(f"clips={clips!r} are no paths; give a path, or a list of them")
    if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
        raise ValueError(f"batch_size={batch_size!r} is no number above 0; set it to 1 or more")


def _sample(clip: Clip) -> VideoSample:
    if not isinstance(clip, str | PathLike):
        raise ValueError(f"{clip!r} is no path of a clip; give texts or pathlib.Path")
    path = Path(clip)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give its clips: sorted(Path({str(path)!r}).glob('*.mp4')), say")
    return loose_sample(path)


def _device(given: str | torch.device | None) -> torch.device:
    if given is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(given)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device={given!r} is no device; set it to cpu, cuda or cuda:0, say") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device={given!r}: there are {torch.cuda.device_count()} CUDA devices; set device='cpu'")
    return device


def _dtype(given: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    if given is None:
        return torch.float16 if device.type == "cuda" else torch.float32
    found = DTYPES.get(given) if isinstance(given, str) else given
    if found is None or found not in DTYPES.values():
        raise ValueError(f"dtype={given!r} is not one of {list(DTYPES)}; set it to one of them")
    return found
