"""A small classifier of a label by numbers about a clip: fitted on some clips, or on each fold's other clips.

Enters: features (NaN where one is not known) and labels. Leaves: a label for each clip, which no clip's own label has
helped to find. Must hold: seeded; clips of one group are never on both sides of a fold.
Suffixes: N clips, M clips to fit, P features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_FOLDS = 5
NUM_TREES = 15


def fit_and_predict(
    fit_MP: NDArray[np.float64], labels_M: Sequence[str], predict_NP: NDArray[np.float64], seed: int = 0
) -> list[str]:
    """A forest of small trees; the only label where there is one.

    Raises:
        ValueError: no clips to fit.
    """
    if not len(labels_M):
        raise ValueError("no clips to fit a classifier on; give some with a known label")
    if len(set(labels_M)) == 1 or not len(predict_NP):
        return [str(labels_M[0])] * len(predict_NP)
    return [str(label) for label in _forest(seed).fit(fit_MP, np.asarray(labels_M)).predict(predict_NP)]


def cross_predict(
    features_NP: NDArray[np.float64], labels_N: Sequence[str], groups_N: Sequence[str] | None = None, seed: int = 0
) -> list[str] | None:
    """A label for each clip by a classifier that was fitted on the other folds' clips.

    Args:
        groups_N: clips of one group stand in one fold; None: each is its own.

    Returns:
        None where there are fewer than two groups, and so no other clips.
    """
    fold_N = folds(len(labels_N) if groups_N is None else groups_N, seed)
    if len(set(fold_N.tolist())) < 2:
        return None
    labels = np.asarray(labels_N, dtype=object)
    found = np.empty(len(labels), dtype=object)
    for fold in np.unique(fold_N):
        held_N = fold_N == fold
        found[held_N] = fit_and_predict(features_NP[~held_N], labels[~held_N].tolist(), features_NP[held_N], seed)
    return found.tolist()


def folds(groups: int | Sequence[str], seed: int = 0) -> NDArray[np.int64]:
    """[N] number of each clip's fold, from 0 to NUM_FOLDS - 1; as even as the groups allow.

    >>> np.bincount(folds(7)).tolist(), len(set(folds(["a", "a", "b"]).tolist()[:2]))
    ([2, 2, 1, 1, 1], 1)
    """
    names = np.arange(groups) if isinstance(groups, int) else np.asarray(groups)
    _, place_N = np.unique(names, return_inverse=True)
    num_groups = int(place_N.max()) + 1 if len(place_N) else 0
    fold_of_group = np.random.default_rng(seed).permutation(num_groups) % NUM_FOLDS
    found: NDArray[np.int64] = fold_of_group[place_N].astype(np.int64)
    return found


def _forest(seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(NUM_TREES, max_depth=8, min_samples_leaf=2, random_state=seed, n_jobs=1)
