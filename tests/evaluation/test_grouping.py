"""Which clips stay together: those that splits.json names, united with the cells of the group column."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from vlm_crash.evaluation.bootstrap import Resamples
from vlm_crash.evaluation.grouping import ClipGroups, clip_groups, resamples_by_event, united
from vlm_crash.evaluation.settings import EvaluationSettings


def clips(*ids: str) -> list:
    return [SimpleNamespace(event=id.split("_")[0], truth=SimpleNamespace(id=id)) for id in ids]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    (tmp_path / "diy_ft_data.json").write_text("{}")
    groups = {"crash_1": "crash_1", "crash_2": "crash_1", "nearmiss_1": "crash_1"}
    (tmp_path / "splits.json").write_text(json.dumps({"assign": {}, "groups": groups}))
    return tmp_path


def test_clips_of_equal_bytes_are_drawn_together_without_a_column(dataset, schema):
    here = clips("crash_1", "crash_2", "crash_3", "nearmiss_1")
    groups = clip_groups([dataset], schema, None, here)
    assert set(groups.labels) == {"crash_1", "crash_2", "nearmiss_1"} and len(set(groups.labels.values())) == 1
    assert "3 clips that splits.json keeps together" in groups.said
    draws = resamples_by_event(schema, here, groups, EvaluationSettings(num_draws=100))
    assert draws["crash"].num_groups == draws["nearmiss"].num_groups == 2
    assert draws["crash"].group_N[0] == draws["crash"].group_N[1] == draws["nearmiss"].group_N[0]


def test_without_a_shared_group_the_draws_are_as_they_were(dataset, schema):
    here = clips("crash_1", "crash_3", "nearmiss_2")  # the others of the group are not evaluated
    groups = clip_groups([dataset], schema, None, here)
    assert groups == ClipGroups({}, None) == clip_groups([dataset / "crash.csv"], schema, None, here)
    draws = resamples_by_event(schema, here, groups, EvaluationSettings(num_draws=100, seed=3))
    for event, number, n in (("crash", 0, 2), ("nearmiss", 1, 1)):
        wanted = Resamples.of_clips(n, 100, 3 + number)
        scores_N1 = np.arange(float(n))[:, None]
        np.testing.assert_array_equal(draws[event].means(scores_N1), wanted.means(scores_N1))


def test_the_column_and_equal_bytes_are_united():
    cells = {"a": "trip 2", "b": "trip 2", "c": "trip 1", "d": "trip 3"}
    found = united(cells, [{"b": "x", "c": "x"}], "Trip", list("abcde"))
    assert found.labels == {"a": "trip 1", "b": "trip 1", "c": "trip 1", "d": "trip 3"}
    assert united(cells, [{"a": "x", "b": "x"}], "Trip", list("abcd")).labels == cells  # nothing new
