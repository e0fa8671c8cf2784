"""Many short texts through a BERT on a CPU: no padding, no mask, a thread for each batch.

Enters: a sentence-transformers model that is a BERT with mean pooling (all-MiniLM-L6-v2) and distinct texts. Leaves: a
unit vector for each. Must hold: it is the vector of `model.encode` up to rounding in fp32. Threads inside an operation
wait for each other hundreds of times a batch and share what is too small to share; whole batches need not.
Suffixes: N texts of a call, B texts of a batch, S tokens of each of them, T = B * S, D hidden, F of the feed-forward
layer, H heads, E of a head, G texts in one row of attention, R = B / G rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, groupby
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlm_crash.metrics.packed_linear import pack_linears

# Both by measurement on cores of 1 MiB L2 (Zen 4): a batch is small for a core's cache, yet fills a matrix product;
# attention's kernel pays for each row and head what about 20 tokens cost.
_BATCH_TOKENS = 512
_ROW_TOKENS = 20
_MODULES = {"Transformer", "Pooling", "Normalize"}
#: Held while the process's number of threads is another: who read it then would keep 1 for good.
_THREADS = Lock()


class BertEncoder(nn.Module):
    """Texts -> unit vectors by the weights of a model that `can_encode` accepts."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        bert = model[0].auto_model
        self.tokenizer = model.tokenizer
        self.words = bert.embeddings.word_embeddings
        self.positions = bert.embeddings.position_embeddings
        self.first_type = bert.embeddings.token_type_embeddings.weight[0].detach()
        self.norm = bert.embeddings.LayerNorm
        self.layers = nn.ModuleList(_Layer(layer) for layer in bert.encoder.layer)
        pack_linears(self)

    @staticmethod
    def can_encode(model: Any) -> bool:
        """Whether a sentence-transformers model is a BERT in fp32 on a CPU whose outputs are averaged, nothing else."""
        from transformers import BertModel

        kinds = [type(module).__name__ for module in model]
        if kinds[:2] != ["Transformer", "Pooling"] or not _MODULES.issuperset(kinds) or model.default_prompt_name:
            return False
        bert = model[0].auto_model
        return (
            type(bert) is BertModel
            and (bert.config.hidden_act, bert.config.is_decoder) == ("gelu", False)
            and (bert.dtype, bert.device.type) == (torch.float32, "cpu")
            and getattr(model[1], "pooling_mode", None) == "mean"
            and model.truncate_dim is None
            and not getattr(model[0], "do_lower_case", False)
        )

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [N, D], float32, of texts (N at least 1)."""
        ids = self.tokenizer(list(texts), truncation=True)["input_ids"]
        with _THREADS:
            num_threads = torch.get_num_threads()
            batches = list(_batches([len(one) for one in ids], num_threads))
            try:
                with ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                    found = list(pool.map(self, [torch.tensor([ids[i] for i in batch]) for batch in batches]))
            finally:
                torch.set_num_threads(num_threads)  # new threads, and MKL in all, had one
        vectors_ND = torch.cat(found)  # after the last batch: torch's own threads would wait awake beside these
        return vectors_ND[torch.tensor(list(chain(*batches))).argsort()]

    @torch.inference_mode()
    def forward(self, ids_BS: Tensor) -> Tensor:
        """Unit vectors [B, D] of texts of the same length."""
        num_texts, length = ids_BS.shape
        states_BSD = self.words(ids_BS) + self.positions.weight[:length] + self.first_type
        states_TD = self.norm(states_BSD).flatten(0, 1)
        in_row = _texts_in_row(length) if num_texts % _texts_in_row(length) == 0 else 1
        own = torch.ones(length, length, dtype=torch.bool)
        may_attend = None if in_row == 1 else torch.block_diag(*[own] * in_row)
        for layer in self.layers:
            states_TD = layer(states_TD, in_row * length, may_attend)
        return functional.normalize(states_TD.view(num_texts, length, -1).mean(1), dim=-1)


class _Layer(nn.Module):
    """A BertLayer; query, key and value are one product."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        attention = layer.attention.self
        parts = (attention.query, attention.key, attention.value)
        self.num_heads = attention.num_attention_heads
        self.qkv = nn.Linear(parts[0].in_features, 3 * parts[0].out_features)
        self.qkv.weight = nn.Parameter(torch.cat([part.weight for part in parts]))
        self.qkv.bias = nn.Parameter(torch.cat([part.bias for part in parts]))
        self.mix, self.mix_norm = layer.attention.output.dense, layer.attention.output.LayerNorm
        self.up = layer.intermediate.dense
        self.down, self.down_norm = layer.output.dense, layer.output.LayerNorm

    def forward(self, states_TD: Tensor, row: int, may_attend: Tensor | None) -> Tensor:
        qkv = self.qkv(states_TD).view(-1, row, 3, self.num_heads, states_TD.shape[-1] // self.num_heads)
        q_RHSE, k_RHSE, v_RHSE = qkv.permute(2, 0, 3, 1, 4)
        mixed_RHSE = functional.scaled_dot_product_attention(q_RHSE, k_RHSE, v_RHSE, attn_mask=may_attend)
        mixed_TD = mixed_RHSE.transpose(1, 2).reshape(states_TD.shape)
        states_TD = self.mix_norm(self.mix(mixed_TD).add_(states_TD))
        # In place: fresh memory for each batch costs more than the function.
        hidden_TF = torch.ops.aten.gelu_(self.up(states_TD))
        return self.down_norm(self.down(hidden_TF).add_(states_TD))


def _texts_in_row(length: int) -> int:
    return max(1, _ROW_TOKENS // length)


def _batches(lengths: list[int], num_threads: int) -> Iterator[list[int]]:
    """Places of texts that have the same length in tokens, the longest first; some for each thread."""
    most = min(_BATCH_TOKENS, sum(lengths) // num_threads + 1)
    ordered = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    for length, group in groupby(ordered, key=lambda i: lengths[i]):
        places, in_row = list(group), _texts_in_row(length)
        size = max(most // (length * in_row), 1) * in_row
        yield from (places[start : start + size] for start in range(0, len(places), size))
