"""A tiny InternVL of our own: its tokenizer, its shape, an empty model folder.

Enters: response texts. Leaves: a folder with config.json, tokenizer and random weights, in transformers' layout, that
fit and predict take like any other.
"""

import math
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import InternVLConfig, InternVLForConditionalGeneration, PreTrainedTokenizerFast

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>")
NUM_FRAMES = 8
IMAGE_SIZE = 128
#: Room for the token ids; the rest of the 8 MB goes to the towers.
VOCABULARY_SIZE = 1600


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE in which the start of a form's line (`- Label: `) can become one token; values split at blanks.

    Any text round-trips, as every byte is a token.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\n+(- [^:\n]+: |\*\*[^:\n]+:\*\*)?| ?[^\s]+"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=64,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
        additional_special_tokens=["<|im_start|>", "<img>", "</img>", "<IMG_CONTEXT>"],
    )


def tiny_config(tokenizer: PreTrainedTokenizerFast) -> InternVLConfig:
    """The shape: 64 patches and, after pixel shuffle, 16 image tokens a frame."""
    image_token_id = tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
    assert isinstance(image_token_id, int)
    config = InternVLConfig(
        vision_config={
            "hidden_size": 160,
            "num_hidden_layers": 5,
            "num_attention_heads": 5,
            "intermediate_size": 640,
            "image_size": IMAGE_SIZE,
            "patch_size": 16,
            "attention_bias": True,
            # The 0.1 of the large models learns slowly from scratch.
            "layer_scale_init_value": 1.0,
        },
        text_config={
            "model_type": "qwen2",
            "hidden_size": 192,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 2048,
            "tie_word_embeddings": True,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": None,
        },
        image_token_id=image_token_id,
        image_seq_length=16,
        downsample_ratio=0.5,
        tie_word_embeddings=True,
    )
    config.vlm_crash = {
        "prompt": "short",
        "num_frames": NUM_FRAMES,
        "preset": "demo",
        "system_message": "",
        "base": "random weights",
    }
    return config


def place_patches(model: InternVLForConditionalGeneration) -> None:
    """Start the position embeddings as sines and cosines of row and column (transformers starts them at 0).

    Where things are decides most fields, and from 0 a small tower is slow to learn it.
    """
    embeddings = model.model.vision_tower.embeddings.position_embeddings
    side, width = int((embeddings.shape[1] - 1) ** 0.5), embeddings.shape[2] // 4
    angle_PW = torch.arange(side)[:, None] * (1.5 * torch.exp(-math.log(40.0) * torch.arange(width) / width))
    waves_PD = torch.cat([angle_PW.sin(), angle_PW.cos()], dim=1)
    grid_PPD = torch.cat([waves_PD[:, None].expand(-1, side, -1), waves_PD[None].expand(side, -1, -1)], dim=2)
    with torch.no_grad():
        embeddings[0, 1:] = grid_PPD.flatten(0, 1)


def write_empty_model(folder: Path, texts: Iterable[str]) -> None:
    """Train the tokenizer and write a model folder with random weights."""
    tokenizer = train_tokenizer(texts)
    model = InternVLForConditionalGeneration(tiny_config(tokenizer))
    place_patches(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
