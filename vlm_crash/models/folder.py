"""What a model folder says of itself, read as data: shapes, and how it was trained.

Enters: the config.json of a folder. Leaves: an InternVLConfig and FolderSettings, which lie under its key `vlm_crash`
and travel with every folder that we write. No code of a folder is ever run.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from transformers import InternVLConfig

from vlm_crash.models.original_config import from_original
from vlm_crash.models.shards import has_weights, stored_tensors, weight_files

log = logging.getLogger(__name__)

IMAGE_TOKEN = "<IMG_CONTEXT>"


@dataclass(frozen=True)
class HicoSettings:
    """Token merging of a video checkpoint (models/token_merging.py).

    Args:
        local_num_frames: frames that are merged together.
        num_tome_tokens: tokens that they become.
        merge_heads: heads over which the similarity of two tokens is averaged.
    """

    local_num_frames: int = 4
    num_tome_tokens: int = 64
    merge_heads: int = 1

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 1:
                raise ValueError(f"hico.{name}={value} is below 1; correct vlm_crash.hico in config.json")
        if self.num_tome_tokens % self.local_num_frames:
            raise ValueError(
                f"hico.num_tome_tokens={self.num_tome_tokens} is not a multiple of "
                f"hico.local_num_frames={self.local_num_frames}: every frame needs as many tokens as the next; "
                "correct vlm_crash.hico in config.json"
            )

    @property
    def tokens_per_frame(self) -> int:
        """Image tokens of one frame in the prompt."""
        return self.num_tome_tokens // self.local_num_frames


@dataclass(frozen=True)
class FolderSettings:
    """What a model folder says about how it was trained; the key `vlm_crash` of its config.json.

    Args:
        prompt: question it knows (see data/conversation.py).
        question: a lab's own wording that it was trained with; None: none.
        num_frames: frames per clip; None: not said.
        frame_rule: how they are chosen (see video/frame_sampling.py); None: middle.
        frames: further settings of the rule, and its window; None: none.
        system_message: system turn; None: InternVL's own.
        base: what the weights are, in words.
        template: chat template it was trained with, by name (see data/conversation.py); None: internvl2_5.
        preset: how the frames stood in its prompt, by name (see data/conversation.py); None: training.
        told_sampling: how its prompt said that they were chosen, by name (see data/conversation.py); None: uniform.
        hico: token merging; None: none.
        image_size: side of a frame in pixels; None: the vision tower's own (else its positions are interpolated).
        schema: the form that it was fitted with (Schema.form); None: not said.
        terms: by field that the schema leaves open, the terms of its dataset; None: not said.
    """

    prompt: str = "full"
    question: str | None = None
    num_frames: int | None = None
    frame_rule: str | None = None
    frames: dict[str, Any] | None = None
    system_message: str | None = None
    base: str | None = None
    template: str | None = None
    preset: str | None = None
    told_sampling: str | None = None
    hico: HicoSettings | None = None
    image_size: int | None = None
    schema: str | None = None
    terms: dict[str, list[str]] | None = None

    def to_dict(self) -> dict:
        return asdict(self)


def read_json(file: Path) -> dict[str, Any]:
    """A JSON file's object.

    Raises:
        ValueError: it is none.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not JSON ({error}); copy the model folder again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds no JSON object; copy the model folder again")
    return content


def is_original(path: str | Path, option: str = "model.path") -> bool:
    """Whether a model folder is in the original OpenGVLab layout, not in transformers' own.

    Args:
        path: of the folder.
        option: what it was given as.

    Raises:
        ValueError: no such folder, no config.json in it, or not an InternVL one.
    """
    file = Path(path) / "config.json"
    if not file.is_file():
        raise ValueError(
            f"{option}={str(path)!r} is no model folder: {file} does not exist; "
            "give a local folder with config.json, weights and tokenizer (`vlm_crash demo` makes one)"
        )
    model_type = read_json(file).get("model_type")
    if model_type not in ("internvl", "internvl_chat"):
        raise ValueError(
            f"{file} has model_type={model_type!r}; InternVL folders have 'internvl' (transformers' own layout) or "
            "'internvl_chat' (the original OpenGVLab layout)"
        )
    return model_type == "internvl_chat"


def read_config(path: str | Path) -> InternVLConfig:
    """Read config.json of a model folder as data, in either layout; no code of the folder is ever run.

    Raises:
        ValueError: no such folder, no config.json in it, not an InternVL one, or one that cannot be computed exactly.
    """
    folder = Path(path)
    original = is_original(folder)
    text = read_json(folder / "config.json")
    if not original:
        return InternVLConfig.from_dict({**text, "tie_word_embeddings": _is_tied(text, folder)})
    config = from_original(text, image_token_id(folder))
    config.vlm_crash = original_settings(text, config).to_dict()
    return config


def _is_tied(text: Mapping[str, Any], folder: Path) -> bool:
    """Whether a folder of transformers has one tensor for both embeddings.

    The published `-hf` folders do not say: transformers 4.52 wrote them, which went by the language model's config, and
    transformers 5 takes what is absent for true. So what is in the files decides.
    """
    if "tie_word_embeddings" in text:
        return bool(text["tie_word_embeddings"])
    if (text.get("text_config") or {}).get("tie_word_embeddings") or not has_weights(folder):
        return True
    return not any(name.endswith("lm_head.weight") for name in stored_tensors(weight_files(folder)))


def image_token_id(folder: Path) -> int:
    """Id of the image token, from the tokenizer's files.

    Raises:
        ValueError: no file has it.
    """
    known: dict[str, int] = {}
    for name in ("added_tokens.json", "tokenizer_config.json", "tokenizer.json"):
        content = read_json(folder / name) if (folder / name).is_file() else {}
        if name == "added_tokens.json":
            known |= content
        for index, token in (content.get("added_tokens_decoder") or {}).items():
            known.setdefault(token["content"], int(index))
        for token in content.get("added_tokens") or ():
            known.setdefault(token["content"], token["id"])
    if IMAGE_TOKEN not in known:
        raise ValueError(f"no tokenizer file in {folder} has the token {IMAGE_TOKEN}; copy the whole model folder")
    return known[IMAGE_TOKEN]


def original_settings(original: Mapping[str, Any], config: InternVLConfig) -> FolderSettings:
    """What a folder in the original layout says of how it was trained.

    Frames are merged (HiCo) where the modelling file of its `auto_map` says so, or where config.json has the keys.
    """
    given = original.get("vlm_crash")
    if given:
        return _settings(given)
    vision: Any = config.vision_config
    text: Any = config.text_config
    names = ("local_num_frames", "num_tome_tokens")
    hico = None
    if any(original.get(name) for name in names) or any(
        "hico" in str(target).lower() for target in (original.get("auto_map") or {}).values()
    ):
        width = vision.hidden_size * round(1 / config.downsample_ratio) ** 2
        hico = HicoSettings(
            **{name: original[name] for name in names if original.get(name)},
            merge_heads=merge_heads(text.num_attention_heads, width),
        )
    image_size = original.get("force_image_size") or vision.image_size[0]
    return FolderSettings(
        system_message=original.get("system_message"),
        template=original.get("template"),
        hico=hico,
        image_size=None if image_size == vision.image_size[0] else image_size,
    )


def merge_heads(num_heads: int, width: int) -> int:
    """Heads over which token merging averages: the language model's, else the next smaller number that divides.

    >>> merge_heads(32, 4096), merge_heads(14, 4096), merge_heads(28, 4096), merge_heads(12, 4096)
    (32, 8, 16, 8)
    """
    heads = next(heads for heads in range(num_heads, 0, -1) if width % heads == 0)
    if heads != num_heads:
        log.warning(
            "token merging over %d heads: the language model has %d, which do not divide the width %d",
            heads, num_heads, width,
        )  # fmt: skip
    return heads


def folder_settings(config: InternVLConfig) -> FolderSettings:
    """The `vlm_crash` part of a config; defaults where there is none."""
    return _settings(getattr(config, "vlm_crash", None) or {})


def _settings(given: Mapping[str, Any]) -> FolderSettings:
    known = {field.name for field in fields(FolderSettings)}
    unknown = sorted(set(given) - known)
    if unknown:
        raise ValueError(f"config.json has unknown vlm_crash keys {unknown}; known are {sorted(known)}")
    hico = given.get("hico")
    return FolderSettings(**{**given, "hico": HicoSettings(**hico) if hico else None})


def tokens_per_frame(config: InternVLConfig) -> int:
    """Image tokens of one frame in the prompt: after pixel shuffle, and after token merging where there is some.

    >>> tokens_per_frame(InternVLConfig())
    256
    """
    hico = folder_settings(config).hico
    if hico is not None:
        return hico.tokens_per_frame
    vision: Any = config.vision_config
    height, width = image_size(config)
    patch_height, patch_width = vision.patch_size
    return int((height // patch_height) * config.downsample_ratio * (width // patch_width) * config.downsample_ratio)


def image_size(config: InternVLConfig) -> tuple[int, int]:
    """Height and width of a frame in pixels."""
    vision: Any = config.vision_config
    side = folder_settings(config).image_size
    return (side, side) if side else tuple(vision.image_size)
