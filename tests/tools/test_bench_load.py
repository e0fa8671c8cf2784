"""tools/bench.py load: processes that share a model do not hold it several times."""

import json
from pathlib import Path

import pytest
from bench import main


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is read from Linux' /proc")
def test_slices_are_shares_of_the_whole(tmp_path: Path) -> None:
    file = tmp_path / "load.json"
    assert main(["load", "--processes", "2", "--megabytes", "120", "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    (table,) = found["tables"]
    rows = {mode: dict(zip(table["columns"][1:], figures, strict=True)) for mode, *figures in table["rows"]}
    assert rows["whole"]["peak of its own (MiB)"] > 100
    assert found["ratios"]["own_memory_whole_vs_slices"] > 1.6
    assert rows["slices"]["share at the end (MiB)"] < 0.65 * rows["whole"]["share at the end (MiB)"]
