"""What a model folder says of itself, read as data: shapes, and how it was trained.

Enters: the config.json of a folder. Leaves: an InternVLConfig and FolderSettings, which lie under its key `vlm_crash`
and travel with every folder that we write. No code of a folder is ever run.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from transformers import InternVLConfig


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
        num_frames: frames per clip; None: not said.
        system_message: system turn; None: InternVL's own.
        base: what the weights are, in words.
        template: chat template it was trained with, by name (see data/conversation.py); None: internvl2_5.
        hico: token merging; None: none.
    """

    prompt: str = "full"
    num_frames: int | None = None
    system_message: str | None = None
    base: str | None = None
    template: str | None = None
    hico: HicoSettings | None = None

    def to_dict(self) -> dict:
        return asdict(self)


def read_config(path: str | Path) -> InternVLConfig:
    """Read config.json of a model folder as data; no code of the folder is ever run.

    Raises:
        ValueError: no such folder, no config.json in it, or not an InternVL one.
    """
    file = Path(path) / "config.json"
    if not file.is_file():
        raise ValueError(
            f"model.path={str(path)!r} is no model folder: {file} does not exist; "
            "give a local folder with config.json, weights and tokenizer (`vlm_crash demo` makes one)"
        )
    try:
        text = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is not JSON ({error}); copy the model folder again") from error
    if text.get("model_type") != "internvl":
        raise ValueError(
            f"{file} has model_type={text.get('model_type')!r}, not 'internvl' (transformers' own layout); "
            "folders in the original OpenGVLab layout are not read yet"
        )
    return InternVLConfig.from_dict(text)


def folder_settings(config: InternVLConfig) -> FolderSettings:
    """The `vlm_crash` part of a config; defaults where there is none."""
    given = getattr(config, "vlm_crash", None) or {}
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
    (height, width), (patch_height, patch_width) = vision.image_size, vision.patch_size
    return int((height // patch_height) * config.downsample_ratio * (width // patch_width) * config.downsample_ratio)
