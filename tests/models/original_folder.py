"""Random checkpoints in the original OpenGVLab layout, of any shape.

Names and shapes are spelled out here from the layout's description, not taken from the tables that are tested.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

PARITY = Path(__file__).parents[1] / "parity/checkpoints"


@dataclass(frozen=True)
class Shape:
    """What may differ between checkpoints."""

    language: str = "internlm2"
    hidden: int = 32
    heads: int = 4
    kv_heads: int = 2
    layers: int = 2
    intermediate: int = 24
    vocab: int = 400
    bias: bool = False
    tied: bool = False
    vision_hidden: int = 24
    vision_heads: int = 3
    vision_layers: int = 1
    vision_intermediate: int = 40
    qkv_bias: bool = True
    qk_norm: bool = False
    norm: str = "layer_norm"
    image: int = 56
    dtype: torch.dtype = torch.bfloat16
    seed: int = 0


def shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor."""
    s, v, w = shape, shape.vision_hidden, shape.vision_intermediate
    found: dict[str, tuple[int, ...]] = {
        "vision_model.embeddings.class_embedding": (1, 1, v),
        "vision_model.embeddings.position_embedding": (1, (s.image // 14) ** 2 + 1, v),
        "vision_model.embeddings.patch_embedding.weight": (v, 3, 14, 14),
        "vision_model.embeddings.patch_embedding.bias": (v,),
        "mlp1.0.weight": (4 * v,),
        "mlp1.0.bias": (4 * v,),
        "mlp1.1.weight": (s.hidden, 4 * v),
        "mlp1.1.bias": (s.hidden,),
        "mlp1.3.weight": (s.hidden, s.hidden),
        "mlp1.3.bias": (s.hidden,),
        "language_model.model.norm.weight": (s.hidden,),
    }
    for i in range(s.vision_layers):
        layer = {"attn.qkv.weight": (3 * v, v), "attn.proj.weight": (v, v), "attn.proj.bias": (v,)}
        layer |= {"mlp.fc1.weight": (w, v), "mlp.fc1.bias": (w,), "mlp.fc2.weight": (v, w), "mlp.fc2.bias": (v,)}
        layer |= {"norm1.weight": (v,), "norm2.weight": (v,), "ls1": (v,), "ls2": (v,)}
        layer |= {"attn.qkv.bias": (3 * v,)} if s.qkv_bias else {}
        layer |= {"attn.q_norm.weight": (v,), "attn.k_norm.weight": (v,)} if s.qk_norm else {}
        layer |= {"norm1.bias": (v,), "norm2.bias": (v,)} if s.norm == "layer_norm" else {}
        found |= {f"vision_model.encoder.layers.{i}.{name}": size for name, size in layer.items()}
    d, m, kv = s.hidden, s.intermediate, s.kv_heads * (s.hidden // s.heads)
    for i in range(s.layers):
        if s.language == "internlm2":
            layer = {"attention.wqkv.weight": (d + 2 * kv, d), "attention.wo.weight": (d, d)}
            layer |= {"attention.wqkv.bias": (d + 2 * kv,), "attention.wo.bias": (d,)} if s.bias else {}
            layer |= {"feed_forward.w1.weight": (m, d), "feed_forward.w3.weight": (m, d)}
            layer |= {"feed_forward.w2.weight": (d, m), "attention_norm.weight": (d,), "ffn_norm.weight": (d,)}
        else:
            layer = {f"self_attn.{name}_proj.weight": (size, d) for name, size in (("q", d), ("k", kv), ("v", kv))}
            layer |= {f"self_attn.{name}_proj.bias": (size,) for name, size in (("q", d), ("k", kv), ("v", kv))}
            layer |= {"self_attn.o_proj.weight": (d, d), "mlp.gate_proj.weight": (m, d), "mlp.up_proj.weight": (m, d)}
            layer |= {"mlp.down_proj.weight": (d, m), "input_layernorm.weight": (d,)}
            layer |= {"post_attention_layernorm.weight": (d,)}
        found |= {f"language_model.model.layers.{i}.{name}": size for name, size in layer.items()}
    embedding, head = ("tok_embeddings", "output") if s.language == "internlm2" else ("model.embed_tokens", "lm_head")
    found[f"language_model.{'model.' if s.language == 'internlm2' else ''}{embedding}.weight"] = (s.vocab, d)
    if not s.tied:
        found[f"language_model.{head}.weight"] = (s.vocab, d)
    return found


def _like(shape: Shape) -> Path:
    return PARITY / ("internlm2" if shape.language == "internlm2" else "qwen2_qknorm")


def config(shape: Shape) -> dict:
    """config.json, with the keys that real folders have beside those that matter."""
    s = shape
    content = json.loads(
        (PARITY / ("internlm2" if s.language == "internlm2" else "qwen2_qknorm") / "config.json").read_text()
    )
    content["force_image_size"] = s.image
    content["torch_dtype"] = str(s.dtype).removeprefix("torch.")
    content["llm_config"] |= {
        "hidden_size": s.hidden, "num_attention_heads": s.heads, "num_key_value_heads": s.kv_heads,
        "num_hidden_layers": s.layers, "intermediate_size": s.intermediate, "vocab_size": s.vocab,
        "tie_word_embeddings": s.tied, **({"bias": s.bias} if s.language == "internlm2" else {}),
    }  # fmt: skip
    content["vision_config"] |= {
        "hidden_size": s.vision_hidden, "num_attention_heads": s.vision_heads, "num_hidden_layers": s.vision_layers,
        "intermediate_size": s.vision_intermediate, "qkv_bias": s.qkv_bias, "qk_normalization": s.qk_norm,
        "norm_type": s.norm, "image_size": s.image,
    }  # fmt: skip
    return content


def random_tensors(shape: Shape) -> dict[str, Tensor]:
    """Weights of a size that keeps activations near 1."""
    torch.manual_seed(shape.seed)
    return {
        name: (torch.randn(size) * (size[-1] ** -0.5 if len(size) > 1 else 0.2) + (len(size) == 1)).to(shape.dtype)
        for name, size in shapes(shape).items()
    }


def write_original(folder: Path, shape: Shape, num_files: int = 1, kind: str = "safetensors") -> dict[str, Tensor]:
    """Write a folder; returns its tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in _like(shape).iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            shutil.copy(path, folder / path.name)
    (folder / "config.json").write_text(json.dumps(config(shape)))
    tensors = random_tensors(shape)
    write_weights(folder, tensors, num_files, kind)
    return tensors


def write_weights(folder: Path, tensors: dict[str, Tensor], num_files: int = 1, kind: str = "safetensors") -> None:
    """Write tensors in one file or several of about the same size, with an index."""
    stem, suffix = ("model", "safetensors") if kind == "safetensors" else ("pytorch_model", "bin")
    sizes = sum(tensor.nbytes for tensor in tensors.values()) / num_files
    groups: list[dict[str, Tensor]] = [{} for _ in range(num_files)]
    done = 0
    for name, tensor in tensors.items():
        groups[min(int(done / sizes), num_files - 1)][name] = tensor
        done += tensor.nbytes
    names = [f"{stem}.{suffix}"] if num_files == 1 else [
        f"{stem}-{n:05d}-of-{num_files:05d}.{suffix}" for n in range(1, num_files + 1)
    ]  # fmt: skip
    for name, group in zip(names, groups, strict=True):
        if kind == "safetensors":
            save_file(group, folder / name, metadata={"format": "pt"})
        else:
            torch.save(group, folder / name)
    if num_files > 1:
        weight_map = {key: name for name, group in zip(names, groups, strict=True) for key in group}
        index = {"metadata": {}, "weight_map": weight_map}
        (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))


def described(shape: Shape) -> str:
    """A test's id."""
    usual = asdict(Shape())
    return ",".join(f"{name}={value}" for name, value in asdict(shape).items() if value != usual[name]) or "usual"
