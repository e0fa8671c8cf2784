"""Two processes, each with its slices of the parameters, hold together what one process holds."""

from pathlib import Path

from tests.models.original_folder import Shape, write_original
from tests.parallel.conftest import finish, start
from vlm_crash.models.convert import convert


def test_each_process_reads_its_rows(tmp_path: Path) -> None:
    # Odd sizes, so that the processes' shares differ; three key-value heads, so that a slice ends inside a group.
    packed = Shape(hidden=48, heads=6, kv_heads=3, bias=True, vocab=403, vision_hidden=36, image=56, intermediate=33)
    tied = Shape(language="qwen2", tied=True, vocab=405)
    write_original(tmp_path / "packed", packed, 2)
    write_original(tmp_path / "tied", tied, 2, "bin")
    convert(tmp_path / "packed", tmp_path / "transformers")
    folders = [str(tmp_path / name) for name in ("packed", "tied", "transformers")]
    processes = start(2, *folders, module="tests.models.shard_worker")
    said = finish(processes)
    for process, text in zip(processes, said, strict=True):
        assert process.returncode == 0, text[-3000:]
