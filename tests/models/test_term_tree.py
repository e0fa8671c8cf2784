"""Terms as a tree of tokens, by hand."""

import math

import pytest

from vlm_crash.models.term_tree import ROOT, TermTree, best_term

#: c is longer than b, d than c; e parts from all others at once.
SEQUENCES = {"b": [1, 2, 4, 9], "c": [1, 2, 4, 5, 9], "d": [1, 2, 4, 5, 6, 9], "e": [1, 2, 3, 9]}


def test_shape() -> None:
    tree = TermTree.of(SEQUENCES)
    assert (tree.head, tree.node_ids, tree.parents, tree.depths) == ((1, 2), [4, 5], [ROOT, 0], [0, 1])
    assert [(choice.node, choice.children) for choice in tree.choices] == [(ROOT, (4, 3)), (0, (9, 5)), (1, (9, 6))]
    assert {term: list(tree.tokens(place)) for place, term in enumerate(tree.terms)} == SEQUENCES


def test_probabilities_sum_to_one_and_a_longer_term_pays_nothing_for_its_length() -> None:
    even = TermTree.of(SEQUENCES).probabilities([[0.0, 0.0]] * 3)
    assert sum(even.values()) == pytest.approx(1)
    assert even == pytest.approx({"b": 0.25, "c": 0.125, "d": 0.125, "e": 0.5})
    # "e" has a token more than "b", without an alternative.
    assert TermTree.of({"b": [1, 9], "e": [2, 3, 9]}).probabilities([[0.0, 0.0]]) == pytest.approx({"b": 0.5, "e": 0.5})


def test_the_most_probable_term_is_not_always_where_the_best_tokens_lead() -> None:
    tree = TermTree.of(SEQUENCES)
    scores = [[math.log(0.6), math.log(0.4)], [math.log(0.5), math.log(0.5)], [0.0, 0.0]]
    assert tree.terms[best_term(tree.log_probs(scores))] == "e"  # 0.4 against 0.3
    assert tree.terms[tree.greedy(scores)] == "b"


def test_one_term_is_no_choice() -> None:
    tree = TermTree.of({"only": [1, 2]})
    assert (tree.head, tree.choices, tree.rest) == ((1, 2), [], [()])


@pytest.mark.parametrize("sequences", [{"a": [1, 2], "b": [1, 2, 3]}, {"a": [1, 2], "b": [1, 2]}])
def test_terms_that_cannot_be_told_apart_are_refused(sequences: dict[str, list[int]]) -> None:
    with pytest.raises(ValueError, match="'a' as the beginning of 'b'"):
        TermTree.of(sequences)
