"""plan predict: whether a model answers clips on one GPU, said before it is run.

Enters: options of predict, and of the model its config.json alone. Leaves: a table of peak memory by part, with the
language model in fp16, 8 and 4 bits, on cards of 16 and 24 GB, and what to change where it does not fit. Exit code 0:
it fits the card that is asked about, 1: it does not.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from vlm_crash.cli.arguments import HelpFormatter, explain, known_keys
from vlm_crash.cli.config_files import find_config, resolve_configs
from vlm_crash.cli.plan_configs import merge, put, read_config
from vlm_crash.cli.plan_settings import DEFAULT_FRAMES, _kernel, _least, _model

if TYPE_CHECKING:
    from vlm_crash.parallel.memory_predict import AnswerPlan, AnswerProposal

DOES_NOT_FIT = 1
#: GiB that cards have for programs: a T4 with ECC, the least of those of 16 GB; a TITAN RTX.
CARDS = {"16 GB": 14.6, "24 GB": 23.6}
KINDS = {None: "fp16", "8bit": "8 bits", "4bit": "4 bits"}
#: As models/answering.py, which loads torch.
DECODING = ("best_term", "greedy", "free")
OPTIONS: dict[str, tuple[Any, str]] = {
    "model.path": (
        str,
        "A folder (config.json is read), or a size: 1B, 2B, 4B, 8B (16 tokens a frame), 1B-plain .. (256); unset: 8B",
    ),
    "model.attention": (str, "SDPA kernel: math, efficient, flash or auto (planned as math, which needs most)."),
    "model.vision_chunk": (int | None, "Frames that go through the vision tower at once."),
    "model.load_in": (str | None, "The language model's matrices in 8bit or 4bit; unset: fp16."),
    "model.decoding": (str, "best_term, greedy (terms are judged as trees) or free."),
    "model.max_new_tokens": (int | None, "Most tokens of an answer of decoding free."),
    "data.num_frames": (int | None, "Frames of a clip."),
    "data.batch_size": (int, "Clips of a batch."),
}
WHAT = {
    "weights": "all of them, as they are loaded",
    "frames": "pixels of the batch, in fp32",
    "activations": "of the layer at hand, and what stays of the layers before",
    "attention": "score matrices, and copies beside them",
    "cache": "keys and values of prompt and answer",
    "logits": "of the next token, in fp32",
    "context and gaps": "--reserve",
}


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="vlm_crash plan predict",
        description="whether a model answers clips in the memory of one GPU (fp16), by part, and what to change if not",
        exit_on_error=False,
        allow_abbrev=False,
        formatter_class=HelpFormatter,
    )
    add = parser.add_argument
    add("-c", "--config", type=str, action="append", help="Config of predict; a later one goes over an earlier one.")
    add("--gpu_memory", type=float, default=23.6, help="GiB of the GPU; 24 GB of a TITAN RTX are 23.6.")
    add("--reserve", type=float, default=1.2, help="GiB of it for the CUDA context and gaps between blocks.")
    add("--text_tokens", type=int | None, help="Tokens of a prompt beside its frames' own; unset: 600.")
    add("--answer_tokens", type=int | None, help="Most tokens of an answer; unset: --model.max_new_tokens, or 1024.")
    add("--json", type=Path | None, help="File for every figure.")
    for name, (kind, text) in OPTIONS.items():
        # No defaults: what is not given here is the config's.
        metavar = name.rsplit(".", 1)[-1].upper()
        add(f"--{name}", dest=name.replace(".", "__"), metavar=metavar, type=kind | None, help=text)
    return parser


def run(command: str, args: Sequence[str]) -> int:
    """Print the plan."""
    parser = build_parser()
    try:
        options = parser.parse_args(resolve_configs(args))
    except ArgumentError as error:
        raise ValueError(str(explain(error, known_keys(parser), command))) from error
    notes: list[str] = []
    name, plan = read_plan(options, notes)
    from vlm_crash.parallel.memory_predict import answer_proposals

    found = [] if plan.fits else answer_proposals(plan)
    plans = {kind: replace(plan, setting=replace(plan.setting, load_in=kind)) for kind in KINDS}
    print(page(name, plan, plans, found, notes))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        content = figures(name, plan, plans, found, notes)
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0 if plan.fits else DOES_NOT_FIT


def read_plan(options: Namespace, notes: list[str]) -> tuple[str, "AnswerPlan"]:
    """The model's name and the plan that is asked for; `notes` gets what was assumed.

    Raises:
        ValueError: a value that cannot be, by its option.
    """
    from vlm_crash.parallel.memory_plan import Card
    from vlm_crash.parallel.memory_predict import AnswerPlan, AnswerSetting

    for option in ("gpu_memory", "reserve"):
        if not options[option] >= 0 or (option == "gpu_memory" and options[option] == 0):
            raise ValueError(f"{option}={options[option]} is no memory in GiB; set --{option} to a number above 0")
    config: dict[str, Any] = {}
    for file in options.config or ():
        merge(config, read_config(find_config(file)))
    for option in OPTIONS:
        if (value := options.get(option.replace(".", "__"))) is not None:
            put(config, option, value)
    model, data = (dict(config.get(section) or {}) for section in ("model", "data"))
    name, shape, own_frames = _model(model.get("path"), notes)
    frames, chunk = data.get("num_frames"), model.get("vision_chunk")
    is_form = _word(model, "decoding", "best_term", dict.fromkeys(DECODING)) != "free"
    given = _lengths(options, None if is_form else model.get("max_new_tokens"))
    setting = AnswerSetting(
        num_frames=_least("data.num_frames", (own_frames or DEFAULT_FRAMES) if frames is None else frames, 1),
        batch_size=_least("data.batch_size", data.get("batch_size", 1), 1),
        vision_chunk=None if chunk is None else _least("model.vision_chunk", chunk, 1),
        load_in=_word(model, "load_in", None, KINDS),
        kernel=_kernel(model.get("attention", "math"), notes),
        is_form=is_form,
        **given,
    )
    return name, AnswerPlan(shape, setting, Card(options.gpu_memory, options.reserve))


def _lengths(options: Namespace, most_free: Any) -> dict[str, int]:
    """Tokens of prompt and answer, as far as they are given; `most_free`: what the model says of a free answer."""
    if options["model__max_new_tokens"] is not None and (most_free is None or options.answer_tokens is not None):
        raise ValueError(
            "--model.max_new_tokens has no effect here: it plans the answers of --model.decoding free (of a form it "
            "limits each text), and --answer_tokens goes before it; leave it out"
        )
    given: dict[str, int] = {}
    for option, value in {
        "model.max_new_tokens": most_free, "text_tokens": options.text_tokens, "answer_tokens": options.answer_tokens,
    }.items():  # fmt: skip
        if value is not None:
            given["text_tokens" if option == "text_tokens" else "answer_tokens"] = _least(option, value, 1)
    return given


def _word(model: Mapping[str, Any], name: str, default: str | None, known: Mapping[Any, Any]) -> str | None:
    value = model.get(name, default)
    if value not in known:
        allowed = ", ".join(word for word in known if word)
        raise ValueError(f"{name}={value!r} is not one of {allowed}; set --model.{name} to one of them")
    return value


def page(
    name: str,
    plan: "AnswerPlan",
    plans: Mapping[str | None, "AnswerPlan"],
    found: Sequence["AnswerProposal"],
    notes: Sequence[str],
) -> str:
    """What the command prints."""
    setting = plan.setting
    billions = sum(plan.shape.parameters.values()) / 1e9
    clips = f"{setting.batch_size} clip{'s' if setting.batch_size > 1 else ''} a batch"
    chunk = f", {setting.vision_chunk} at once" if setting.vision_chunk else ", all at once"
    head = f"{name} ({billions:.2f} billion weights) answers on one GPU: {setting.num_frames} frames{chunk}, {clips}, "
    head += f"prompts of {setting.num_tokens(plan.shape):,} tokens, answers of {setting.answer_tokens:,}"
    words = "peak in GiB, with the language model in "
    width = len(words)
    kinds = "".join(f"{word:>10}" for word in KINDS.values())
    lines = [head, "", f"{words}{kinds}   at most (a part alone, in {KINDS[setting.load_in]})"]

    def row(head: str, cells: Sequence[str], what: str = "") -> str:
        return f"  {head:<{width - 2}}" + "".join(f"{cell:>10}" for cell in cells) + (f"   {what}" if what else "")

    parts = {kind: each.parts for kind, each in plans.items()}
    most = plan.most
    lines += [
        row(part, [f"{parts[kind][part]:.2f}" for kind in KINDS], f"{most[part]:6.2f}   {what}")
        for part, what in WHAT.items()
    ]
    lines.append(row("peak", [f"{each.peak_gib:.2f}" for each in plans.values()]))
    lines.append(row("in", [each.peak_moment for each in plans.values()]))
    lines += [
        row(f"the worst of: {moment}", [f"{each.moments[moment]:.2f}" for each in plans.values()])
        for moment in plan.moments
    ]
    lines += [
        row(f"fits {card} ({size:g} GiB)", ["yes" if each.peak_gib <= size else "no" for each in plans.values()])
        for card, size in CARDS.items()
    ]
    lines += ["", *(f"note: {note}" for note in notes), *verdict(plan, found)]
    return "\n".join(lines)


def verdict(plan: "AnswerPlan", found: Sequence["AnswerProposal"]) -> list[str]:
    """Whether the plan that is asked for fits; if not, what would."""
    asked = f"In {KINDS[plan.setting.load_in]} on {plan.card.memory_gib:g} GiB"
    if plan.fits:
        return [f"{asked} it fits: {plan.left_gib:.2f} GiB are left."]
    lines = [f"{asked} it does not fit: {-plan.left_gib:.2f} GiB are lacking."]
    if found:
        lines.append("What would lower the peak, cheapest first (alone; together with those above):")
        lines += [f"  {row.alone.peak_gib:7.2f} {row.plan.peak_gib:7.2f} GiB  {row.what}" for row in found]
    if found and found[-1].plan.fits:
        lines.append(f"With all of these it fits: {found[-1].plan.left_gib:.2f} GiB are left.")
    else:
        lines.append("Nothing that can be set makes it fit: take a GPU with more memory, or a smaller model.")
    return lines


def figures(
    name: str,
    plan: "AnswerPlan",
    plans: Mapping[str | None, "AnswerPlan"],
    found: Sequence["AnswerProposal"],
    notes: Sequence[str],
) -> dict[str, Any]:
    """Every figure, in GiB."""
    return {
        "model": name,
        "parameters": plan.shape.parameters,
        "gpu_memory_gib": plan.card.memory_gib,
        "tokens": plan.setting.num_tokens(plan.shape),
        "load_in": plan.setting.load_in,
        "peak_gib": plan.peak_gib,
        "most_gib": plan.most,
        "left_gib": plan.left_gib,
        "fits": plan.fits,
        "kinds": {
            KINDS[kind]: {
                "peak_gib": each.peak_gib,
                "peak_moment": each.peak_moment,
                "parts_gib": each.parts,
                "moments_gib": each.moments,
                "fits": {card: each.peak_gib <= size for card, size in CARDS.items()},
            }
            for kind, each in plans.items()
        },
        "notes": list(notes),
        "proposals": [
            {"what": row.what, "alone_gib": row.alone.peak_gib, "peak_gib": row.plan.peak_gib, "fits": row.plan.fits}
            for row in found
        ],
    }
