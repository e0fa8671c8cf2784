"""Ids and labels: equal to upstream's; image tokens per frame, and a loss on the answer alone."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vlm_crash.data.conversation import ChatTemplate, user_turn
from vlm_crash.data.tokenization import IGNORE_INDEX, ConversationTokenizer
from vlm_crash.models.tokenizers import load_tokenizer

PARITY = Path(__file__).parents[1] / "parity"
FOLDERS = {"qwen2": PARITY / "checkpoints/qwen2_hico", "internlm2": PARITY / "checkpoints/internlm2"}
GOLDENS = json.loads((PARITY / "prompts.json").read_text(encoding="utf-8"))
#: What upstream's training scripts use; its other functions differ in labels (docs/prompts.md).
TRAINED = [golden for golden in GOLDENS["train"] if golden["preprocess"] == "preprocess_phi3_fast"]


def original(golden: dict[str, Any], preset: str) -> ConversationTokenizer:
    template = ChatTemplate(name=golden["template"])
    return ConversationTokenizer(load_tokenizer(FOLDERS[golden["arch"]]), 4, template, preset)


def expand(run_lengths: list[list[int]]) -> list[int]:
    return [token for token, count in run_lengths for _ in range(count)]


def spans(labels: list[int]) -> list[list[int]]:
    """[start, end) of each run of labels that carry a loss."""
    edges = [
        i for i in range(len(labels) + 1) if (i < len(labels) and labels[i] >= 0) != (i > 0 and labels[i - 1] >= 0)
    ]
    return [list(span) for span in zip(edges[::2], edges[1::2], strict=True)]


@pytest.mark.parametrize("golden", TRAINED, ids=lambda golden: f"{golden['arch']}-{golden['len']}")
def test_training_is_upstreams(golden):
    conversation = original(golden, "training")
    human, *later = [turn["value"] for turn in golden["conversations"]]
    frames = golden["n_frames"], golden["duration"]
    first = user_turn(human, *frames)
    assert first == golden["human_text_after_video_get_item"]
    sample = conversation.encode([first.replace("<image>", "<img>" + "<IMG_CONTEXT>" * 4 + "</img>"), *later])
    assert sample.input_ids_S.tolist() == expand(golden["ids_rle"])
    assert sample.labels_S is not None
    labels = sample.labels_S.tolist()
    assert spans(labels) == golden["label_spans"]
    assert [labels[start:end] for start, end in spans(labels)] == golden["label_ids"]
    if len(later) == 1:
        again = conversation(human, *frames, answer=later[0])
        assert torch.equal(again.input_ids_S, sample.input_ids_S)
        assert again.labels_S is not None and torch.equal(again.labels_S, sample.labels_S)


@pytest.mark.parametrize("golden", GOLDENS["infer"], ids=lambda g: f"{g['arch']}-{g['template']}-{g['len']}")
def test_the_cards_prompt_is_upstreams(golden):
    conversation = original(golden, "card")
    question = golden["question"].splitlines()[-1]
    assert conversation(question, 8, duration_s=5.0).input_ids_S.tolist() == expand(golden["ids_rle"])
    assert conversation.end_token_id == golden["eos_token_id"]


@pytest.mark.parametrize("file", sorted(PARITY.glob("goldens/*.safetensors")), ids=lambda file: file.stem)
def test_the_sample_of_every_golden_run(file):
    facts = json.loads(file.with_suffix(".json").read_text())
    if "checkpoint" in facts:  # a variant of another: its texts
        facts |= json.loads((file.parent / f"{Path(facts['checkpoint']).name}.json").read_text())
    tensors = load_file(file)
    for case, said in facts["cases"].items():
        suffix = "" if case == "base" else f".{case}"
        tokenizer = load_tokenizer(FOLDERS[facts["arch"]])
        template = ChatTemplate("You watch cars.", said["template_train"])
        conversation = ConversationTokenizer(tokenizer, said["tokens_per_frame"], template)
        question = said["human_train"].rsplit("<image>", 1)[1]
        seconds = float(said["human_train"].split()[4])
        sample = conversation(question, facts["n_frames"], seconds, said["answer"])
        assert sample.labels_S is not None
        assert sample.input_ids_S.tolist() == tensors[f"train.input_ids{suffix}"][0].tolist()
        assert sample.labels_S.tolist() == tensors[f"train.labels{suffix}"][0].tolist()


@pytest.mark.parametrize("family", FOLDERS)
@pytest.mark.parametrize("template", ["internvl2_5", "internlm2-chat"])
def test_unknown_values_of_the_original_tokenizers(family, template):
    conversation = original({"arch": family, "template": template}, "training")
    answer = "This is a crash scenario.\n- Weather: Unknown\n- Lanes: 2"
    start = answer.index("Unknown")
    sample = conversation("Q?", 1, None, answer, unsupervised=[(start, start + len("Unknown"))])
    assert sample.labels_S is not None
    kept = sample.labels_S[sample.labels_S != IGNORE_INDEX]
    said = str(conversation.tokenizer.decode(kept)).replace(" <|im_end|>", "<|im_end|>")
    # The blank in front may belong to the value's first token.
    assert said.split("<|im_end|>")[0] in (answer.replace("Unknown", ""), answer.replace(" Unknown", ""))


@pytest.fixture(scope="module")
def conversation(tiny_model: Path) -> ConversationTokenizer:
    return ConversationTokenizer(load_tokenizer(tiny_model), tokens_per_frame=16, template=ChatTemplate(""))


def test_frames_become_image_tokens(conversation: ConversationTokenizer) -> None:
    sample = conversation("Q?", num_frames=3, duration_s=None)
    image = conversation.tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
    assert int((sample.input_ids_S == image).sum()) == 48
    assert sample.labels_S is None


def test_only_the_answer_and_its_end_are_supervised(conversation: ConversationTokenizer) -> None:
    prompt = conversation("Q?", 1, 2.5)
    sample = conversation("Q?", 1, 2.5, answer="This is a crash scenario.")
    size = len(prompt.input_ids_S)
    assert torch.equal(sample.input_ids_S[:size], prompt.input_ids_S)
    assert sample.labels_S is not None
    assert (sample.labels_S[:size] == IGNORE_INDEX).all()
    assert torch.equal(sample.labels_S[size:], sample.input_ids_S[size:])
    assert conversation.tokenizer.decode(sample.labels_S[size:]) == "This is a crash scenario.<|im_end|>\n"
    assert sample.input_ids_S[-2] == conversation.end_token_id


def test_unknown_values_carry_no_loss(conversation: ConversationTokenizer) -> None:
    answer = "This is a crash scenario.\n- Weather: Unknown\n- Lanes: 2"
    start = answer.index("Unknown")
    sample = conversation("Q?", 1, None, answer, unsupervised=[(start, start + len("Unknown"))])
    assert sample.labels_S is not None
    kept = sample.labels_S[sample.labels_S != IGNORE_INDEX]
    assert conversation.tokenizer.decode(kept) == answer.replace("Unknown", "") + "<|im_end|>\n"


def test_any_text_round_trips(conversation: ConversationTokenizer) -> None:
    text = "Ünïcode 車 \t tabs, **bold**: - a: b\n\n- c: d"
    ids = conversation.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert conversation.tokenizer.decode(ids) == text


def test_an_unknown_preset(conversation: ConversationTokenizer) -> None:
    with pytest.raises(ValueError, match=r"preset='cards' is not one of \['training', 'card', 'demo'\]"):
        ConversationTokenizer(conversation.tokenizer, 16, ChatTemplate(""), preset="cards")


def test_tokenizer_without_image_tokens(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    plain = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"a": 0}, [])))
    with pytest.raises(ValueError, match="<img>"):
        ConversationTokenizer(plain, 16, ChatTemplate(""))
