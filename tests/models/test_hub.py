"""What lies here is never asked for elsewhere; what is fetched has no Python file."""

from fnmatch import fnmatch
from pathlib import Path

import huggingface_hub
import pytest

from tests.models.original_folder import Shape, write_original
from vlm_crash.models.hub import local_folder
from vlm_crash.models.internvl import load_model


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict]:
    """A hub with one model, and what it was asked for."""
    write_original(tmp_path / "hub", Shape())
    (tmp_path / "hub/modeling_internvl_chat.py").write_text("raise SystemExit")
    asked = []

    def download(name: str, revision: str | None, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        asked.append({"name": name, "revision": revision})
        (tmp_path / "fetched").mkdir()
        for file in (tmp_path / "hub").iterdir():
            wanted = any(fnmatch(file.name, pattern) for pattern in allow_patterns)
            if wanted and not any(fnmatch(file.name, pattern) for pattern in ignore_patterns):
                file.rename(tmp_path / "fetched" / file.name)
        return str(tmp_path / "fetched")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return asked


def test_a_name_is_fetched_at_its_revision(hub: list[dict], tmp_path: Path) -> None:
    model = load_model("SomeOwner/Some.Model-1B", revision="v2")
    assert hub == [{"name": "SomeOwner/Some.Model-1B", "revision": "v2"}]
    assert model.config.text_config.hidden_size == 32
    assert [path.name for path in (tmp_path / "hub").iterdir()] == ["modeling_internvl_chat.py"]


@pytest.mark.parametrize("path", ["here/model", "here/gone", "./gone/model", "/gone/model", "gone", "a/b/c", "../a/b"])
def test_a_path_is_not(hub: list[dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """`here/gone` is mistyped: its folder is here."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here/model").mkdir(parents=True)
    assert local_folder(path) == Path(path)
    with pytest.raises(ValueError, match="revision='main' is for names"):
        local_folder(path, "main")
    assert hub == []


def test_no_network_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(
        ValueError, match=r"SomeOwner/SomeModel is no folder here, and fetching it .* failed \(no network\)"
    ):
        local_folder("SomeOwner/SomeModel")
