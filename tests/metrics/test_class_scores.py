"""Balanced accuracy and macro-F1 of counts are those of the libraries, whatever was not answered."""

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score

from vlm_crash.metrics.class_scores import balanced_accuracy, macro_f1, matrix_scores
from vlm_crash.metrics.confusion import FieldConfusion
from vlm_crash.schema.fields import load_schema
from vlm_crash.schema.records import Annotation
from vlm_crash.schema.response import parse, render

TERMS, NO_ANSWER = 4, 4


@pytest.fixture
def said() -> tuple[np.ndarray, np.ndarray]:
    """80 truths of four terms, the last of which is never true, and answers; one in ten is not given."""
    rng = np.random.default_rng(0)
    truth_N = rng.integers(0, 3, 80)
    answer_N = np.where(rng.random(80) < 0.5, truth_N, rng.integers(0, TERMS, 80))
    return truth_N, np.where(rng.random(80) < 0.1, NO_ANSWER, answer_N)


def counts_of(truth_N: np.ndarray, answer_N: np.ndarray) -> np.ndarray:
    counts_TA = np.zeros((TERMS, TERMS + 1), dtype=int)
    np.add.at(counts_TA, (truth_N, answer_N), 1)
    return counts_TA


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_they_are_those_of_scikit_learn_and_torchmetrics(said):
    balanced, f1 = matrix_scores(counts_of(*said))
    truth_N, answer_N = said
    assert balanced == pytest.approx(balanced_accuracy_score(truth_N, answer_N))
    assert f1 == pytest.approx(f1_score(truth_N, answer_N, labels=[0, 1, 2], average="macro"))
    tensors = torch.tensor(answer_N), torch.tensor(truth_N)
    recalls = multiclass_accuracy(*tensors, num_classes=TERMS + 1, average="none")
    assert balanced == pytest.approx(recalls[:3].mean().item())
    assert f1 == pytest.approx(multiclass_f1_score(*tensors, num_classes=TERMS + 1, average="none")[:3].mean().item())


def test_many_draws_at_once_are_each_by_itself(said):
    counts = np.stack([counts_of(said[0][n:], said[1][n:]) for n in (0, 70, 78)]).astype(float)
    hits, truths, answers = np.diagonal(counts, axis1=1, axis2=2), counts.sum(2), counts[:, :, :TERMS].sum(1)
    each = np.array([matrix_scores(one) for one in counts])
    np.testing.assert_allclose(balanced_accuracy(hits, truths), each[:, 0])
    np.testing.assert_allclose(macro_f1(hits, truths, answers), each[:, 1])
    assert np.isnan(balanced_accuracy(np.zeros(3), np.zeros(3)))


def test_several_processes_have_the_scores_of_one():
    schema = load_schema()
    terms = schema.field("Weather").vocabulary
    pairs = [(terms[0], terms[0]), (terms[0], terms[1]), (terms[1], terms[1]), (terms[2], None), (terms[2], terms[2])]

    def counted(some) -> FieldConfusion:
        confusion = FieldConfusion(schema)
        for true, answer in some:
            truth, answered = (Annotation.of(schema, "crash", {"Weather": w} if w else {}) for w in (true, answer))
            confusion.update([parse(schema, render(schema, answered))], [truth])
        return confusion

    one = counted(pairs).compute()["crash/Weather"]
    together = sum(counted(some).compute()["crash/Weather"] for some in (pairs[:2], pairs[2:]))
    assert matrix_scores(together) == matrix_scores(one)
    assert matrix_scores(one) == pytest.approx((2 / 3, (2 / 3 + 2 / 3 + 2 / 3) / 3))
