"""Our greedy decoding against transformers' generate; probabilities of the events against a forward pass."""

from pathlib import Path

import pytest
import torch

from vlm_crash.models.decoding import greedy_answers
from vlm_crash.models.internvl import load_model
from vlm_crash.models.vision import embed_prompt

END = 2
OPENINGS = [[300, 301, 302], [300, 303]]


def _batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Three left-padded rows of different length with one frame each."""
    torch.manual_seed(2)
    ids, mask = torch.zeros(3, 30, dtype=torch.long), torch.zeros(3, 30, dtype=torch.long)
    for row, size in enumerate((30, 24, 19)):
        ids[row, 30 - size :] = torch.randint(6, 300, (size,))
        ids[row, 32 - size : 48 - size] = 5
        mask[row, 30 - size :] = 1
    return ids, mask, torch.randn(3, 3, 128, 128)


@pytest.fixture(scope="module")
def model(tiny_model: Path):
    """The tiny model with larger weights, so that its logits are far from ties."""
    torch.manual_seed(3)
    model = load_model(tiny_model)
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def test_same_ids_as_generate(model) -> None:
    ids, mask, pixels = _batch()
    answers = greedy_answers(model, embed_prompt(model, ids, pixels), mask, OPENINGS, 12, END)
    want = model.generate(
        input_ids=ids, attention_mask=mask, pixel_values=pixels, max_new_tokens=12, do_sample=False, eos_token_id=END,
        pad_token_id=0,
    )[:, 30:]  # fmt: skip
    for row, got in enumerate(answers.token_ids):
        expected = want[row].tolist()
        assert got == (expected[: expected.index(END)] if END in expected else expected)
    assert answers.is_finite == [True] * 3


def test_neighbours_do_not_change_an_answer(model) -> None:
    ids, mask, pixels = _batch()
    together = greedy_answers(model, embed_prompt(model, ids, pixels), mask, OPENINGS, 12, END)
    alone = greedy_answers(model, embed_prompt(model, ids[2:, 11:], pixels[2:]), mask[2:, 11:], OPENINGS, 12, END)
    assert alone.token_ids[0] == together.token_ids[2]
    torch.testing.assert_close(alone.event_log_probs_BE[0], together.event_log_probs_BE[2], rtol=1e-4, atol=1e-4)


def test_event_probabilities_equal_a_forward_pass(model) -> None:
    ids, _, pixels = _batch()
    ids, pixels = ids[:1], pixels[:1]
    answers = greedy_answers(model, embed_prompt(model, ids, pixels), torch.ones_like(ids), OPENINGS, 1, END)
    scores = []
    for opening in OPENINGS:
        whole = torch.cat([ids, torch.tensor([opening])], dim=1)
        with torch.no_grad():
            logits = model(input_ids=whole, pixel_values=pixels).logits.log_softmax(dim=2)
        scores.append(sum(logits[0, 29 + k, token] for k, token in enumerate(opening)))
    want = torch.stack(scores).log_softmax(dim=0)
    torch.testing.assert_close(answers.event_log_probs_BE[0], want, rtol=1e-4, atol=1e-4)


def test_non_finite_logits_are_told_by_row(model) -> None:
    ids, mask, pixels = _batch()
    pixels[1] = torch.nan
    answers = greedy_answers(model, embed_prompt(model, ids, pixels), mask, OPENINGS, 4, END)
    assert answers.is_finite == [True, False, True]
