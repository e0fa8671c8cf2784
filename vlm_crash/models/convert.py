"""Model folders are written here: transformers' layout, or the original OpenGVLab one.

Enters: weights, a config, and the folder that they came from. Leaves: a whole folder or none. Invariants: plain
transformers loads a folder of its layout; the way original -> transformers -> original gives the same tensors, the same
config.json and the same tokenizer files, as those of the original travel along in the sub-folder `original`.
"""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, InternVLConfig

from vlm_crash.models.checkpoints import meta_model
from vlm_crash.models.folder import HicoSettings, folder_settings, is_original, merge_heads, read_config, read_json
from vlm_crash.models.hub import local_folder
from vlm_crash.models.lora_files import check_trained, fingerprint, merged, write_adapter
from vlm_crash.models.lora_record import check_base, settings_of, with_form
from vlm_crash.models.original_config import to_original
from vlm_crash.models.processor import save_processor
from vlm_crash.models.saving import AS_STORED, DTYPES, save_weights
from vlm_crash.models.tokenizers import check_tokenizer, load_tokenizer, save_tokenizer
from vlm_crash.models.training_checkpoint import OpenCheckpoint, TrainedWeights, check_fits, shapes_of
from vlm_crash.models.weights import EMBEDDING, HEAD, Weights, folder_weights, tensors_on_disk

LAYOUTS = ("transformers", "original")
ALONE = "adapter"  # a layout that only LoRA's checkpoints have
ORIGINAL = "original"
_CARRIED = (".json", ".txt", ".model", ".jinja")


def convert(
    source: str | Path,
    out: Path,
    dtype: str = AS_STORED,
    hico: bool | None = None,
    revision: str | None = None,
    overwrite: bool = False,
) -> Path:
    """A folder in the original OpenGVLab layout -> one in transformers'.

    Args:
        source: folder, or OWNER/NAME on the Hugging Face hub.
        out: the new folder.
        dtype: of the new weights: float16, bfloat16, float32, or as_stored.
        hico: merge frames' tokens; None: where the source says so.
        revision: branch, tag or commit on the hub.
        overwrite: replace `out` where it is a model folder already.

    Raises:
        ValueError: the source is no such folder or does not fit together, or `out` is in use.
    """
    folder = local_folder(source, revision)
    if not is_original(folder, "source"):
        raise ValueError(f"{folder} is in transformers' layout already; vlm_crash and transformers load it as it is")
    config = read_config(folder)
    if hico is not None:
        config.vlm_crash = {**config.vlm_crash, "hico": _hico(config) if hico else None}
    refuse_used(out, folder, overwrite)
    with _told(out, folder), folder_weights(folder, config, original=True) as weights:
        return write_folder(weights, config, folder, out, "transformers", dtype)


def export_folder(
    folder: Path, out: Path, layout: str = "transformers", dtype: str = AS_STORED, overwrite: bool = False
) -> Path:
    """A model folder in either layout -> one in the layout asked for.

    Args:
        folder: the model folder.
        out: the new folder.
        layout: transformers or original.
        dtype: of the new weights: float16, bfloat16, float32, or as_stored.
        overwrite: replace `out` where it is a model folder already.

    Raises:
        ValueError: the folder does not fit together, or `out` is in use.
        OSError: `out` cannot be written, as the disk is full for example.
    """
    refuse_used(out, folder, overwrite)
    config = read_config(folder)
    with _told(out, folder), folder_weights(folder, config, is_original(folder)) as weights:
        return write_folder(weights, config, folder, out, layout, dtype)


def export_trained(
    open_checkpoint: Callable[[], OpenCheckpoint],
    model: str | Path,
    out: Path,
    layout: str = "transformers",
    dtype: str = AS_STORED,
    revision: str | None = None,
    overwrite: bool = False,
) -> Path:
    """A training checkpoint -> a model folder.

    Args:
        open_checkpoint: opens the checkpoint; it is read tensor by tensor.
        model: folder (or OWNER/NAME on the hub) that the training started from.
        out: the new folder.
        layout: transformers or original; of a LoRA checkpoint, whose adapters are merged into these, also adapter:
            them alone, in peft's format.
        dtype: of the new weights: float16, bfloat16, float32, or as_stored (merged: as the base is stored).
        revision: branch, tag or commit on the hub.
        overwrite: replace `out` where it is a model folder already.

    Raises:
        ValueError: the checkpoint cannot be read or is of another model, or `out` is in use.
        OSError: `out` cannot be written, as the disk is full for example.
    """
    check_form(layout, dtype)
    source = local_folder(model, revision)
    is_original(source, "model")
    refuse_used(out, source, overwrite)
    config = read_config(source)
    weights = TrainedWeights(open_checkpoint, config.tie_word_embeddings)
    config.vlm_crash = {**folder_settings(config).to_dict(), **weights.settings}
    config.dtype = None if dtype == AS_STORED else DTYPES.get(dtype)
    if weights.lora is not None:
        with _told(out, source):
            return _export_lora(weights, weights.lora, config, source, out, layout, dtype)
    if layout == ALONE:
        raise ValueError(f"{weights.path} holds whole weights, no adapters; set --layout to one of {list(LAYOUTS)}")
    wanted = shapes_of(meta_model(config))
    if config.tie_word_embeddings:
        del wanted[HEAD]
    check_fits(weights.path, weights.shapes, wanted, source)
    with _told(out, source):
        return write_folder(weights, config, source, out, layout, dtype)


def _export_lora(
    trained: TrainedWeights,
    record: Mapping[str, Any],
    config: InternVLConfig,
    source: Path,
    out: Path,
    layout: str,
    dtype: str,
) -> Path:
    """Adapters merged into their base, or alone."""
    settings = settings_of(record)
    check_trained(config, settings, trained, trained.path, source)
    check_base(record, source, fingerprint(source), trained.path)
    if layout == ALONE:
        with whole_folder(out) as part:
            write_adapter(part, trained, with_form(record, config.vlm_crash), source, dtype)
        return out
    with merged(source, config, trained, settings, dtype) as both:
        return write_folder(both, config, source, out, layout, dtype)


def check_form(layout: str, dtype: str, layouts: Sequence[str] = (*LAYOUTS, ALONE)) -> None:
    """ValueError for a layout that is not one of `layouts`, or an unknown dtype."""
    for name, value, allowed in (("layout", layout, layouts), ("dtype", dtype, (AS_STORED, *DTYPES))):
        if value not in allowed:
            raise ValueError(f"{name}={value!r} is not one of {list(allowed)}; set --{name} to one of them")


def _hico(config: InternVLConfig) -> dict[str, Any]:
    given = folder_settings(config).hico
    if given is None:
        vision: Any = config.vision_config
        width = vision.hidden_size * round(1 / config.downsample_ratio) ** 2
        given = HicoSettings(merge_heads=merge_heads(config.get_text_config().num_attention_heads, width))
    return vars(given)


def write_folder(
    weights: Weights,
    config: InternVLConfig,
    source: Path,
    out: Path,
    layout: str = "transformers",
    dtype: str = AS_STORED,
) -> Path:
    """Write a whole model folder, in the place of one that is there.

    Args:
        weights: by the names of the model.
        config: of the model, with its `vlm_crash` settings.
        source: the folder that the model came from: its tokenizer and its original files go along.
        out: the new folder.
        layout: transformers or original.
        dtype: float16, bfloat16, float32, or as_stored.

    Raises:
        ValueError: an unknown layout or dtype; settings that the layout has no place for.
        OSError: what the system says, disk full for example.
    """
    check_form(layout, dtype, LAYOUTS)
    kept: Any = (config.dtype or weights.dtypes[EMBEDDING]) if dtype == AS_STORED else DTYPES[dtype]
    with whole_folder(out) as part:
        if layout == "original":
            _write_original_files(config, source, part, kept)
        else:
            _write_transformers_files(config, source, part, kept)
        save_weights(part, tensors_on_disk(weights, config, layout == "original"), dtype)
    return out


def _write_transformers_files(config: InternVLConfig, source: Path, part: Path, dtype: torch.dtype) -> None:
    config.architectures = ["InternVLForConditionalGeneration"]
    for inner in (config, config.text_config, config.vision_config):
        inner.dtype = dtype  # type: ignore[union-attr]
    config.save_pretrained(part)
    tokenizer = load_tokenizer(source)
    check_tokenizer(tokenizer, config)
    save_tokenizer(tokenizer, part)
    save_processor(config, part)
    save_tokenizer(tokenizer, part)  # again, as the processor writes a tokenizer too
    _generation_config(config, source, tokenizer.get_vocab()).save_pretrained(part)
    originals = _original_files(source)
    if originals:
        (part / ORIGINAL).mkdir()
        for file in originals:
            shutil.copy(file, part / ORIGINAL / file.name)


def _generation_config(config: InternVLConfig, source: Path, vocabulary: dict[str, int]) -> GenerationConfig:
    """The source's; where it has none, an answer ends with its turn."""
    if (source / "generation_config.json").is_file():
        return GenerationConfig.from_pretrained(source)
    text: Any = config.text_config
    end = vocabulary.get("<|im_end|>", text.eos_token_id)
    return GenerationConfig(eos_token_id=end, pad_token_id=end if text.pad_token_id is None else text.pad_token_id)


def _original_files(folder: Path) -> list[Path]:
    """What the original folder held beside weights: config, tokenizer, generation settings; never a .py file."""
    place = folder if is_original(folder) else folder / ORIGINAL
    found = sorted(place.iterdir()) if place.is_dir() else []
    return [path for path in found if path.suffix in _CARRIED and not path.name.endswith(".index.json")]


def _write_original_files(config: InternVLConfig, source: Path, part: Path, dtype: torch.dtype) -> None:
    """The files that the folder came with where they still say the same, else new ones."""
    originals = _original_files(source)
    for file in originals:
        shutil.copy(file, part / file.name)
    if not originals:
        save_tokenizer(load_tokenizer(source), part)
        if (source / "generation_config.json").is_file():
            shutil.copy(source / "generation_config.json", part)
    file = part / "config.json"
    before = read_json(file) if file.is_file() else None
    after = to_original(config, dtype, before)
    if after != before:
        file.write_text(json.dumps(after, indent=2) + "\n", encoding="utf-8")
    if folder_settings(read_config(part)) != folder_settings(config):
        settings = folder_settings(config).to_dict()
        file.write_text(json.dumps({**after, "vlm_crash": settings}, indent=2) + "\n", encoding="utf-8")


def refuse_used(out: Path, source: Path, overwrite: bool) -> None:
    """Say before any work that the new folder's place is taken.

    Raises:
        ValueError: `out` is in use, or is, holds or lies in the source.
    """
    place, taken = out.resolve(), source.resolve()
    if place in (taken, *taken.parents):
        raise ValueError(f"out={str(out)!r} is or holds the source {source}; set --out to another folder")
    if taken in place.parents:
        raise ValueError(f"out={str(out)!r} lies in the source {source}; set --out to a folder outside of it")
    if out.exists() and not out.is_dir():
        raise ValueError(f"out={str(out)!r} is a file; set --out to a folder that is to be made")
    if not out.exists() or not any(out.iterdir()):
        return
    if not overwrite:
        raise ValueError(
            f"out={str(out)!r} is not empty; set --out to another folder, or --overwrite true to replace what is there"
        )
    if not any((out / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise ValueError(f"out={str(out)!r} is no model folder, so it is not replaced; set --out to another folder")


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder to be filled, which gets its name when everything is in it; nothing is left of it after a failure."""
    part, old = out.with_name(f".{out.name}.part"), out.with_name(f".{out.name}.replaced")
    try:
        for left in (part, old):  # of a run that was killed
            shutil.rmtree(left, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        if out.exists():
            out.rename(old)
        part.replace(out)
    finally:
        for left in (part, old):
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _told(out: Path, source: Path) -> Iterator[None]:
    """What the system refuses, with the new folder's name and what to do; what it refuses of the source stays."""
    try:
        yield
    except OSError as error:
        if error.filename is not None and Path(os.fsdecode(error.filename)).is_relative_to(source):
            raise
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "free some space or set --out elsewhere" if full else "set --out to a folder that can be written to"
        reason = f"cannot write ({error.strerror or error}); {remedy}"
        raise OSError(error.errno, reason, str(out)) from error
