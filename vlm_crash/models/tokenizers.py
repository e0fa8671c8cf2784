"""The tokenizer of a model folder: transformers' own, Qwen2's or InternLM2's files -> a fast tokenizer.

Enters: tokenizer.json; or vocab.json and merges.txt; or a sentencepiece tokenizer.model with its added tokens.
Leaves: a tokenizer whose ids equal those of the code that the checkpoint came with, and files from which plain
transformers makes the same one. Invariant: files are read as data; no code of a folder is ever run.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, processors
from tokenizers.models import BPE
from transformers import InternVLConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast, Qwen2Tokenizer
from transformers.convert_slow_tokenizer import generate_merges, import_protobuf

from vlm_crash.models.folder import IMAGE_TOKEN, read_json

CONFIG_FILE = "tokenizer_config.json"
#: What sentencepiece writes for a blank.
BLANK = "▁"
#: Kinds of pieces in sentencepiece_model.proto.
NORMAL, USER_DEFINED, UNUSED = 1, 4, 5


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a model folder.

    Raises:
        ValueError: the folder has none, or a file of it is broken (it is named).
    """
    folder = Path(path)
    settings = read_json(folder / CONFIG_FILE) if (folder / CONFIG_FILE).is_file() else {}
    files = {name for name in ("tokenizer.json", "vocab.json", "tokenizer.model") if (folder / name).is_file()}
    # Fine-tunes may carry both files; the slow class that InternLM2's folders name reads tokenizer.model alone.
    if "tokenizer.model" in files and str(settings.get("tokenizer_class", "")).startswith("InternLM2"):
        return _load_sentencepiece(folder, settings)
    if "tokenizer.json" in files:
        if "model" not in read_json(folder / "tokenizer.json"):
            raise ValueError(f"{folder / 'tokenizer.json'} is no fast tokenizer: it has no model; copy the file again")
        return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    if "vocab.json" in files:
        _check_byte_pairs(folder)
        return Qwen2Tokenizer.from_pretrained(folder, local_files_only=True)
    if "tokenizer.model" in files:
        return _load_sentencepiece(folder, settings)
    raise ValueError(
        f"{folder} has no tokenizer (tokenizer.json, vocab.json with merges.txt, or tokenizer.model); "
        "copy the whole model folder"
    )


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, out: str | Path) -> None:
    """Write the files from which AutoTokenizer, and AutoProcessor beside a processor's own, make the same tokenizer."""
    tokenizer.save_pretrained(out)
    file = Path(out) / CONFIG_FILE
    settings = read_json(file)
    settings.pop("auto_map", None)  # it would ask for code that does not come along
    # InternVLProcessor asks for these names. A token for videos must be one that exists, as AutoTokenizer would add any
    # other behind the embeddings; the processor itself never leaves <img> in a text for the next step to find.
    settings |= {"start_image_token": "<img>", "context_image_token": IMAGE_TOKEN, "end_image_token": "</img>"}
    settings["video_token"] = "<img>"
    file.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, config: InternVLConfig) -> None:
    """Hold a tokenizer against the model that it feeds.

    Raises:
        ValueError: it gives ids that have no embedding, or its image token is not the model's.
    """
    vocabulary = tokenizer.get_vocab()
    vocabulary.pop("<video>", None)  # published -hf folders name it behind the embeddings; their processor replaces it
    last, rows = max(vocabulary.values()), config.get_text_config().vocab_size
    if last >= rows:
        raise ValueError(
            f"the tokenizer's ids go up to {last}, and the model has {rows} embeddings; "
            "tokenizer and weights are of two models: copy the model folder again"
        )
    image_token_id = vocabulary.get(IMAGE_TOKEN)
    if image_token_id != config.image_token_id:
        raise ValueError(
            f"{IMAGE_TOKEN} has id {image_token_id} in the tokenizer, and config.json says {config.image_token_id}; "
            "tokenizer and weights are of two models: copy the model folder again"
        )


def _check_byte_pairs(folder: Path) -> None:
    """vocab.json and merges.txt go together; the library below would end in an error without a file's name."""
    file = folder / "merges.txt"
    if not file.is_file():
        raise ValueError(f"{folder} has vocab.json and no merges.txt; copy the whole model folder")
    vocabulary = read_json(folder / "vocab.json")
    for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip() or line.startswith("#version"):
            continue
        pair = line.rstrip("\r").split(" ")
        if len(pair) != 2 or not {*pair, "".join(pair)} <= vocabulary.keys():
            raise ValueError(
                f"{file}:{number}: {line!r} joins no two tokens of vocab.json; copy the model folder again"
            )


# ------------------------------------------------------------------------------------------------------ InternLM2


def _load_sentencepiece(folder: Path, settings: Mapping[str, Any]) -> PreTrainedTokenizerFast:
    """InternLM2's folder. Its class puts a BOS first unless told otherwise (tokenization_internlm2.py's defaults)."""
    file = folder / "tokenizer.model"
    model = import_protobuf().ModelProto()
    try:
        model.ParseFromString(file.read_bytes())
    except DecodeError as error:
        raise ValueError(f"{file} is no sentencepiece model ({error}); copy the model folder again") from error
    _refuse_unsupported(file, model)
    if settings.get("add_eos_token", False):
        raise ValueError(f"{folder / CONFIG_FILE} sets add_eos_token, which would end every prompt; set it to false")
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
    special = {name: _content(settings.get(name, usual)) for name, usual in names.items()}
    added = _added_tokens(folder, settings)
    tokenizer = _fast_sentencepiece(model, added)
    bos = special["bos_token"]
    if settings.get("add_bos_token", True):
        if bos is None or tokenizer.token_to_id(bos) is None:
            raise ValueError(f"{folder} asks for a BOS and has no token {bos!r}; correct {CONFIG_FILE}")
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    further = [token.content for token in added.values() if token.special and token.content not in special.values()]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **{name: token for name, token in special.items() if token is not None},
        extra_special_tokens=further,
        clean_up_tokenization_spaces=False,
    )


def _content(token: Any) -> str | None:
    """A special token's text; tokenizer_config.json gives it as such or as an object."""
    return token["content"] if isinstance(token, dict) else token


def _added_tokens(folder: Path, settings: Mapping[str, Any]) -> dict[int, AddedToken]:
    """Tokens by id that lie over the sentencepiece model's or behind them.

    Raises:
        ValueError: the two files that list them contradict each other.
    """
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    added = {
        int(token_id): AddedToken(given["content"], **{flag: given.get(flag, False) for flag in flags})
        for token_id, given in settings.get("added_tokens_decoder", {}).items()
    }
    file = folder / "added_tokens.json"
    for content, token_id in (read_json(file) if file.is_file() else {}).items():
        known = added.setdefault(token_id, AddedToken(content, normalized=False, special=True))
        if known.content != content:
            raise ValueError(
                f"id {token_id} is {content!r} in {file} and {known.content!r} in {CONFIG_FILE}; "
                "copy the model folder again"
            )
    return added


def _refuse_unsupported(file: Path, model: Any) -> None:
    """What no InternLM2 folder has and the conversion below would not do the same."""
    rule, trained = model.normalizer_spec, model.trainer_spec
    pieces = {piece.piece for piece in model.pieces if piece.type in (NORMAL, USER_DEFINED)}
    unused = [piece.piece for piece in model.pieces if piece.type == UNUSED]
    wrong = {
        f"model_type {trained.model_type}, not BPE (2)": trained.model_type != 2,
        f"normalizer {rule.name!r}, not identity": bool(rule.precompiled_charsmap),
        "remove_extra_whitespaces": rule.remove_extra_whitespaces,
        "no escape_whitespaces": not rule.escape_whitespaces,
        "treat_whitespace_as_suffix": trained.treat_whitespace_as_suffix,
        # sentencepiece merges into these first and takes them apart again, which blocks other merges.
        "unused pieces that others make up": any(
            {name[:cut], name[cut:]} <= pieces for name in unused for cut in range(1, len(name))
        ),
        "a symbol with a blank": any(p.type == USER_DEFINED and {" ", BLANK} & {*p.piece} for p in model.pieces),
    }
    found = [what for what, is_wrong in wrong.items() if is_wrong]
    if found:
        raise ValueError(f"{file} has {', '.join(found)}: only sentencepiece models of InternLM2's form are supported")


def _fast_sentencepiece(model: Any, added: Mapping[int, AddedToken]) -> Tokenizer:
    """The sentencepiece model, with the added tokens in the places of pieces or behind them.

    Added tokens split the text first, and every part between them gets its own blank in front: InternLM2's slow class
    gives each part to sentencepiece by itself.
    """
    names = {number: piece.piece for number, piece in enumerate(model.pieces)}
    names |= {number: token.content for number, token in added.items()}
    vocabulary = {name: number for number, name in names.items()}
    scores = {
        piece.piece: piece.score
        for number, piece in enumerate(model.pieces)
        if piece.type in (NORMAL, USER_DEFINED) and number not in added
    }
    tokenizer = Tokenizer(
        BPE(
            vocabulary,
            # Neither control nor byte pieces take part in merges, and unused ones are never reached (see above).
            generate_merges({name: vocabulary[name] for name in scores}, scores),
            unk_token=model.trainer_spec.unk_piece,
            fuse_unk=True,
            byte_fallback=model.trainer_spec.byte_fallback,
        )
    )
    symbols = [piece.piece for piece in model.pieces if piece.type == USER_DEFINED and piece.piece in scores]
    prefix = model.normalizer_spec.add_dummy_prefix
    steps: list[Any] = [normalizers.Prepend(BLANK)] if prefix else []
    if prefix and symbols:
        # A symbol is sought in the normalized text, and its own text is normalized for that: no blank in front of it.
        alone = "|".join(map(re.escape, symbols))
        steps = [normalizers.Replace(Regex(rf"\A(?!(?:{alone})\z)(?=[\s\S])"), BLANK)]
    steps.append(normalizers.Replace(" ", BLANK))
    tokenizer.normalizer = normalizers.Sequence(steps)
    blanks: list[Any] = [decoders.Replace(BLANK, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*blanks, *([decoders.Strip(" ", 1, 0)] if prefix else [])])
    tokenizer.add_tokens([AddedToken(symbol, normalized=True, special=False) for symbol in symbols])
    tokenizer.add_tokens(list(added.values()))
    return tokenizer
