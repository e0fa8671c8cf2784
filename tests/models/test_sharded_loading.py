"""Two processes, each with its slices of the parameters, hold together what one process holds."""

import os
import subprocess
import sys
from pathlib import Path

from tests.models.original_folder import Shape, write_original
from vlm_crash.models.convert import convert

ROOT = Path(__file__).parents[2]


def test_each_process_reads_its_rows(tmp_path: Path) -> None:
    # Odd sizes, so that the processes' shares differ; three key-value heads, so that a slice ends inside a group.
    packed = Shape(hidden=48, heads=6, kv_heads=3, bias=True, vocab=403, vision_hidden=36, image=56, intermediate=33)
    tied = Shape(language="qwen2", tied=True, vocab=405)
    write_original(tmp_path / "packed", packed, 2)
    write_original(tmp_path / "tied", tied, 2, "bin")
    convert(tmp_path / "packed", tmp_path / "transformers")
    folders = [str(tmp_path / name) for name in ("packed", "tied", "transformers")]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    result = subprocess.run(
        [*launch, str(Path(__file__).with_name("shard_worker.py")), *folders],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        check=False, timeout=900,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
