"""Prompts, ids, labels and frame indices against prompts.json, frame_indices.json and the texts of goldens/.

Enters: those files and the tokenizers of checkpoints/. Leaves: differences in a Report.
"""

import json
import re
from collections.abc import Mapping
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from parity.report import Report
from vlm_crash.data.conversation import IMAGE_PLACEHOLDER, ChatTemplate, user_turn
from vlm_crash.data.tokenization import IGNORE_INDEX, IMAGE_CONTEXT, IMAGE_END, IMAGE_START, ConversationTokenizer
from vlm_crash.models.tokenizers import load_tokenizer
from vlm_crash.video.frame_sampling import INDEX_RULES

# What upstream's training scripts use. Its other functions give other labels, which no preset of ours has.
TRAINED_WITH = "preprocess_phi3_fast"


def check_sample(
    row: str, tokenizer: PreTrainedTokenizerBase, facts: Mapping[str, Any], given: Mapping[str, Tensor], report: Report
) -> None:
    """The texts of a golden: the training sample, and the question that was answered."""
    system = re.search(r"<\|im_start\|>system\n(.*?)<\|im_end\|>", facts["query_infer"], flags=re.S)
    template = ChatTemplate(system[1] if system else "", facts["template_train"])
    conversation = ConversationTokenizer(tokenizer, facts["tokens_per_frame"], template)
    sample = conversation.encode([_with_images(facts["human_train"], facts["tokens_per_frame"]), facts["answer"]])
    assert sample.labels_S is not None
    report.equal(row, "train.input_ids from its text", sample.input_ids_S[None], given["train.input_ids"])
    report.equal(row, "train.labels from its text", sample.labels_S[None], given["train.labels"])
    asked = re.sub(r"<IMG_CONTEXT>\*(\d+)", lambda found: IMAGE_CONTEXT * int(found[1]), facts["query_infer"])
    report.equal(row, "gen.input_ids from its text", [tokenizer(asked)["input_ids"]], given["gen.input_ids"])


def check_prompts(folder: Path, report: Report) -> None:
    """Ids and labels of whole conversations, as they are trained and as the model card asks."""
    goldens = json.loads((folder / "prompts.json").read_text(encoding="utf-8"))
    tokens_per_frame = goldens["_meta"]["tokens_per_frame"]
    tokenizers = {arch: load_tokenizer(_tokenizer_folder(folder, arch)) for arch in _archs(goldens)}
    for number, golden in enumerate(goldens["train"]):
        if golden["preprocess"] != TRAINED_WITH:
            continue
        row, which = f"prompts train {golden['arch']}", f"of train[{number}]"
        template = ChatTemplate(name=golden["template"])
        conversation = ConversationTokenizer(tokenizers[golden["arch"]], tokens_per_frame, template)
        human, *later = [turn["value"] for turn in golden["conversations"]]
        first = user_turn(human, golden["n_frames"], golden["duration"])
        report.equal(row, f"human text {which}", first == golden["human_text_after_video_get_item"], True)
        sample = conversation.encode([_with_images(first, tokens_per_frame), *later])
        ids, labels = _expanded(golden["ids_rle"]), [IGNORE_INDEX] * golden["len"]
        for (start, end), learnt in zip(golden["label_spans"], golden["label_ids"], strict=True):
            labels[start:end] = learnt
        report.equal(row, f"ids {which}", sample.input_ids_S, ids)
        report.equal(row, f"labels {which}", sample.labels_S, labels)
    for number, golden in enumerate(goldens["infer"]):
        row, which = f"prompts infer {golden['arch']}", f"of infer[{number}]"
        template = ChatTemplate(name=golden["template"])
        conversation = ConversationTokenizer(tokenizers[golden["arch"]], tokens_per_frame, template, "card")
        num_frames = golden["question"].count(IMAGE_PLACEHOLDER)
        sample = conversation(golden["question"].rsplit(f"{IMAGE_PLACEHOLDER}\n", 1)[1], num_frames, None)
        report.equal(row, f"ids {which}", sample.input_ids_S, _expanded(golden["ids_rle"]))
        report.equal(row, f"eos_token_id {which}", conversation.end_token_id, golden["eos_token_id"])


def check_frame_indices(folder: Path, report: Report) -> None:
    """Both rules: upstream's training reader and the model card, of whole clips and of parts."""
    for case in json.loads((folder / "frame_indices.json").read_text())["cases"]:
        total, fps, num_frames = case["total_frames"], case["fps"], case["num_frames"]
        parts = {"middle": (0, total), "card": (0, total)}
        if case["clip"]:  # the part that each of upstream's rules cuts out
            start, end = case["clip"]
            parts["middle"] = (int(start * fps), int((min(end, total / fps - 0.1) - start) * fps))
            parts["card"] = (round(start * fps), min(round(end * fps), total - 1) - round(start * fps) + 1)
        for rule, golden in (("middle", "train_indices"), ("card", "card_indices")):
            if golden in case:  # upstream's reader fails on some clips
                first, length = parts[rule]
                got = [first + index for index in INDEX_RULES[rule](length, num_frames)]
                report.equal("frame indices", f"{golden} of {num_frames} from {total} frames", got, case[golden])


def _with_images(text: str, tokens_per_frame: int) -> str:
    return text.replace(IMAGE_PLACEHOLDER, IMAGE_START + IMAGE_CONTEXT * tokens_per_frame + IMAGE_END)


def _expanded(runs: list[list[int]]) -> list[int]:
    return list(chain.from_iterable(repeat(token, count) for token, count in runs))


def _archs(goldens: Mapping[str, Any]) -> set[str]:
    return {golden["arch"] for part in ("train", "infer") for golden in goldens[part]}


def _tokenizer_folder(folder: Path, arch: str) -> Path:
    """The checkpoint whose tokenizer made the prompts of an architecture: the one of its name, else the first."""
    found = [folder / "checkpoints" / arch]
    for file in sorted(folder.glob("goldens/*.json")):
        if json.loads(file.read_text()).get("arch") == arch:
            found.append(folder / "checkpoints" / file.stem)
    return next((path for path in found if (path / "tokenizer_config.json").is_file()), found[0])
