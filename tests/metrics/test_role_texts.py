"""The role check on texts of other wording than the demo's: police reports, insurers, newspapers (role_pairs.tsv).

Each text has a counterpart with its roles swapped and a paraphrase. They were written before the check's words were
read; the words were then extended by what was missed in the first half. The other half was held back.
"""

import csv
from pathlib import Path

import pytest

from vlm_crash.metrics.roles import compare_roles, roles_verdict
from vlm_crash.schema.fields import load_schema


@pytest.mark.parametrize("half, least", [("first", 31), ("held", 28)])
def test_swaps_are_noticed_and_paraphrases_are_not_called_swapped(half, least):
    mirror = load_schema().mirror
    with Path(__file__).with_name("role_pairs.tsv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["half"] == half]
    assert len(rows) == 36

    def swapped(other: str) -> list[str]:
        verdicts = {row[other]: roles_verdict(compare_roles(row["text"], row[other], mirror)) for row in rows}
        return [text for text, verdict in verdicts.items() if verdict == "swapped"]

    assert len(swapped("swapped")) >= least
    assert swapped("paraphrase") == []
    for row in rows:
        assert roles_verdict(compare_roles(row["text"], row["text"], mirror)) != "swapped"
