"""Checkpoints in the original layout against goldens/: features, logits, losses, ids, in both kinds of attention.

Enters: goldens/<variant>.json and .safetensors, checkpoints/, inputs/. Leaves: differences in a Report.
"""

# Suffixes: B batch, S sequence, N frames, V vocabulary.

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import InternVLForConditionalGeneration

from parity.report import Report
from parity.texts import check_sample
from vlm_crash.models.decoding import Decoder, greedy_answers
from vlm_crash.models.folder import folder_settings, read_config
from vlm_crash.models.internvl import label_loss, load_model
from vlm_crash.models.term_tree import TermTree
from vlm_crash.models.tokenizers import load_tokenizer
from vlm_crash.models.vision import embed_prompt, image_features
from vlm_crash.video.image_transform import IMAGENET_MEAN, IMAGENET_STD

ATTENTION = ("eager", "sdpa")
# A fact in a golden's json -> the tensors that it announces.
ANNOUNCES = {
    "loss": ("train.input_ids", "train.labels", "train.loss", "train.logits_tail64", "train.logsumexp", "train.argmax"),
    "greedy_min_top2_gap": ("gen.input_ids", "gen.new_ids", "gen.step0_logits"),
    "visual_std": ("visual", "vit_last_hidden_frames01"),
    "r_merge_list": ("merged",),
    "batch2": tuple(f"batch2.{name}" for name in ("input_ids", "labels", "attention_mask", "logits_tail12", "loss")),
}


def check_variant(folder: Path, name: str, report: Report) -> None:
    """Everything in goldens/<name>.json and .safetensors."""
    facts = json.loads((folder / f"goldens/{name}.json").read_text())
    goldens = report.load(name, folder / f"goldens/{name}.safetensors")
    file, _, count = facts["pixel_values"].rstrip("]").partition("[:")
    pixels_N3HW = pixel_values(report.load(name, folder / file))[: int(count) if count else None]
    for case, said in facts["cases"].items():
        row = name if case == "base" else f"{name} {case}"
        given = {
            tensor.removesuffix(f".{case}"): value
            for tensor, value in goldens.items()
            if tensor.endswith(f".{case}") or not any(tensor.endswith(f".{other}") for other in facts["cases"])
        }
        missing = [tensor for fact in said or facts for tensor in ANNOUNCES.get(fact, ()) if tensor not in given]
        report.problems += [f"{row}: golden {tensor} is missing" for tensor in missing]
        if missing or not len(pixels_N3HW):
            continue
        check_case(folder, row, {**facts, **said}, given, pixels_N3HW, report)


def check_case(
    folder: Path, row: str, facts: Mapping[str, Any], given: Mapping[str, Tensor], pixels_N3HW: Tensor, report: Report
) -> None:
    """One setting of a checkpoint against its goldens, in both kinds of attention."""
    source = folder / facts.get("checkpoint", f"checkpoints/{facts['variant']}")
    with tempfile.TemporaryDirectory() as made:
        model = load_model(variant_folder(source, Path(made), facts))
    hico = folder_settings(read_config(source)).hico
    report.equal(f"{row}, text", "image token", model.config.image_token_id, facts["img_context_token_id"])
    report.equal(f"{row}, text", "whether frames are merged", hico is not None, facts["hico"])
    if hico and "merge_head" in facts:
        report.equal(f"{row}, text", "heads of merging", hico.merge_heads, facts["merge_head"])
    if "query_infer" in facts:
        check_sample(f"{row}, text", load_tokenizer(source), facts, given, report)
    logits = []
    for attention in ATTENTION:
        model.set_attn_implementation(attention)
        got = computed(model, given, pixels_N3HW, facts["im_end_id"])
        compare(f"{row}, {attention}", got, given, facts, report)
        logits.append(got["train.logits"])
    report.close(f"{row}, {ATTENTION[-1]}", "sdpa-eager", "logits in eager and in SDPA math", *logits)


def compare(
    row: str, got: Mapping[str, Tensor], given: Mapping[str, Tensor], facts: Mapping[str, Any], report: Report
) -> None:
    """What was computed against every golden of a case."""
    for name, golden in given.items():
        if name not in got:
            report.problems.append(f"{row}: golden {name} is of no known kind; nothing was compared with it")
        elif golden.dtype.is_floating_point:
            report.close(row, kind_of(name), name, got[name], golden)
        else:
            report.equal(row, name, got[name], golden)
    report.equal(row, "gen.new_ids by transformers' generate", got["generate"], given["gen.new_ids"])
    said = {"train.loss": facts.get("loss"), "batch2.loss": facts.get("batch2", {}).get("loss")}
    for name, loss in said.items():
        if loss is not None:
            report.add(row, "loss", f"{name} of the json", abs(got[name].item() - loss))
    if "padding" in got:
        report.add(row, "padding", "a row in a padded batch and alone", got["padding"].item())


def variant_folder(source: Path, out: Path, facts: Mapping[str, Any]) -> Path:
    """The checkpoint with the golden's settings: links, and a config.json of its own."""
    if not (source / "config.json").is_file():
        raise ValueError(f"its checkpoint {source} is missing")
    config = json.loads((source / "config.json").read_text())
    for key, value in facts.get("config_override", {}).items():
        *parents, last = key.split(".")
        place = config
        for parent in parents:
            place = place[parent]
        place[last] = value
    if facts["hico"]:
        config |= {key: facts[key] for key in ("local_num_frames", "num_tome_tokens")}
    for file in source.iterdir():
        (out / file.name).symlink_to(file.resolve())
    (out / "config.json").unlink()
    (out / "config.json").write_text(json.dumps(config))
    return out


def pixel_values(inputs: Mapping[str, Tensor]) -> Tensor:
    """Frames as the tower takes them; some files have them before normalisation."""
    if "resized_uint8" not in inputs:
        return inputs.get("pixel_values", torch.empty(0))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (inputs["resized_uint8"].float() / 255 - mean) / std


def kind_of(name: str) -> str:
    """The kind of a golden, by its name.

    >>> kind_of("train.logits_tail64"), kind_of("visual"), kind_of("vit_last_hidden_frames01")
    ('logits', 'visual', 'vit')
    """
    return next((kind for kind in ("vit", "visual", "merged", "logsumexp", "loss") if kind in name), "logits")


@torch.no_grad()
def computed(
    model: InternVLForConditionalGeneration, given: Mapping[str, Tensor], pixels_N3HW: Tensor, end_token_id: int
) -> dict[str, Tensor]:
    """What vlm_crash makes of the goldens' inputs, by the goldens' names; the inputs themselves are among them."""
    got = {name: value for name, value in given.items() if name.endswith(("input_ids", "labels", "attention_mask"))}
    got["vit_last_hidden_frames01"] = model.model.vision_tower(pixels_N3HW[:2]).last_hidden_state
    num_frames = pixels_N3HW.shape[0]
    projected: list[Tensor] = []
    hook = model.model.multi_modal_projector.register_forward_pre_hook(lambda _, inputs: projected.append(inputs[0]))
    got["visual"] = image_features(model, pixels_N3HW, [num_frames]).unflatten(0, (num_frames, -1))
    hook.remove()
    if "merged" in given:
        got["merged"] = projected[0].unflatten(0, (-1, given["merged"].shape[1]))

    ids_BS, labels_BS = given["train.input_ids"], given["train.labels"]
    got["train.logits"], got["train.loss"] = forward(model, ids_BS, torch.ones_like(ids_BS), labels_BS, pixels_N3HW)
    got["train.logits_tail64"] = got["train.logits"][:, -64:]
    got["train.logsumexp"] = got["train.logits"].logsumexp(dim=2)
    got["train.argmax"] = got["train.logits"].argmax(dim=2)

    embeds_BSD = embed_prompt(model, given["gen.input_ids"], pixels_N3HW)
    num_new = given["gen.new_ids"].shape[1]
    mask_BS = torch.ones_like(given["gen.input_ids"])
    untyped: Any = model  # transformers types generate for another class
    plain = untyped.generate(
        inputs_embeds=embeds_BSD, attention_mask=mask_BS, max_new_tokens=num_new, do_sample=False,
        eos_token_id=end_token_id, pad_token_id=end_token_id, output_logits=True, return_dict_in_generate=True,
    )  # fmt: skip
    got["gen.step0_logits"], got["gen.last_step_logits"] = plain.logits[0], plain.logits[-1]
    got["generate"] = plain.sequences
    events = TermTree.of({"any": [end_token_id]})
    answers = greedy_answers(Decoder(model, embeds_BSD, mask_BS), events, num_new, end_token_id)
    got["gen.new_ids"] = torch.tensor([answers.token_ids[0] + [end_token_id] * answers.is_ended[0]])
    if "batch2.input_ids" in given:
        got |= computed_batch(model, given, pixels_N3HW)
    return got


def computed_batch(
    model: InternVLForConditionalGeneration, given: Mapping[str, Tensor], pixels_N3HW: Tensor
) -> dict[str, Tensor]:
    """The padded batch, and how far its rows are from the rows alone."""
    ids_BS, mask_BS, labels_BS = (given[f"batch2.{name}"] for name in ("input_ids", "attention_mask", "labels"))
    logits_BSV, loss = forward(model, ids_BS, mask_BS, labels_BS, pixels_N3HW)
    differences = []
    for row, pixels in enumerate(pixels_N3HW.chunk(len(ids_BS))):
        real = mask_BS[row].bool()
        ids_1S = ids_BS[row : row + 1, real]
        alone_1SV, _ = forward(model, ids_1S, torch.ones_like(ids_1S), labels_BS[row : row + 1, real], pixels)
        differences.append((alone_1SV[0] - logits_BSV[row, real]).abs().max())
    tail = given["batch2.logits_tail12"]
    is_padding = mask_BS[:, -tail.shape[1] :, None] == 0
    return {
        "batch2.logits_tail12": torch.where(is_padding, tail, logits_BSV[:, -tail.shape[1] :]),
        "batch2.loss": loss,
        "padding": torch.stack(differences).max(),
    }


def forward(
    model: InternVLForConditionalGeneration, ids_BS: Tensor, mask_BS: Tensor, labels_BS: Tensor, pixels_N3HW: Tensor
) -> tuple[Tensor, Tensor]:
    """Logits [B, S, V] and mean loss [1] of prompts with their frames."""
    embeds_BSD = embed_prompt(model, ids_BS, pixels_N3HW)
    loss_sum, num_labels = label_loss(model, embeds_BSD, mask_BS, labels_BS)
    return model(inputs_embeds=embeds_BSD, attention_mask=mask_BS).logits, (loss_sum / num_labels).view(1)
