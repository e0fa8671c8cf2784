"""Ids and labels: image tokens per frame, and a loss on the answer alone."""

from pathlib import Path

import pytest
import torch

from vlm_crash.data.conversation import ChatTemplate
from vlm_crash.data.tokenization import IGNORE_INDEX, ConversationTokenizer
from vlm_crash.models.tokenizers import load_tokenizer


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


def test_tokenizer_without_image_tokens(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    plain = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"a": 0}, [])))
    with pytest.raises(ValueError, match="<img>"):
        ConversationTokenizer(plain, 16, ChatTemplate(""))
