"""convert and export: vlm_crash.models.convert, given checkpoints that vlm_crash.parallel.checkpoint opens."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

DTYPES = "Numbers of the new weights: float16, bfloat16, float32, or as_stored."
REMEDY = "give a .ckpt that fit wrote"
REVISION = "Branch, tag or commit, where the model is a name on the hub."
LAYOUT = "transformers, or original (OpenGVLab's); of a LoRA checkpoint also adapter: not merged, in peft's format."
OVERWRITE = "Replace the folder of --out where it is a model folder already."


def convert_parser(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("source", type=str, help="Folder in the original OpenGVLab layout, or OWNER/NAME on the Hugging Face hub.")
    add("--out", type=Path, required=True, help="The new folder, in transformers' layout.")
    add("--dtype", type=str, default="as_stored", help=DTYPES)
    add("--hico", type=str, default="auto", help="Merge the tokens of frames: on, off, or auto (as the source says).")
    add("--revision", type=str | None, help=REVISION)
    add("--overwrite", type=bool, default=False, help=OVERWRITE)


def convert(options: Namespace) -> int:
    hico = {"auto": None, "on": True, "off": False}
    # YAML reads on and off as true and false.
    given = {"true": "on", "false": "off"}.get(str(options.hico).lower(), options.hico)
    if given not in hico:
        raise ValueError(f"hico={options.hico!r} is not one of {list(hico)}; set --hico to one of them")
    from vlm_crash.models.convert import convert as run

    folder = run(options.source, options.out, options.dtype, hico[given], options.revision, options.overwrite)
    print(f"model folder: {folder}")
    return 0


def export_parser(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("checkpoint", type=Path, help="A .ckpt file that fit wrote, the folder of a sharded one, or a model folder.")
    add("--model", type=str | None, help="Folder (or OWNER/NAME on the hub) that the checkpoint was trained from.")
    add("--out", type=Path, required=True, help="The new folder.")
    add("--layout", type=str, default="transformers", help=LAYOUT)
    add("--dtype", type=str, default="as_stored", help=DTYPES)
    add("--revision", type=str | None, help=REVISION)
    add("--overwrite", type=bool, default=False, help=OVERWRITE)


def export(options: Namespace) -> int:
    given: Path = options.checkpoint
    if (given / "config.json").is_file():
        if options.model is not None or options.revision is not None:
            raise ValueError(f"{given} is a model folder already; leave out --model and --revision")
        from vlm_crash.models.convert import export_folder

        folder = export_folder(given, options.out, options.layout, options.dtype, options.overwrite)
    else:
        folder = _export_trained(given, options)
    print(f"{'adapter' if options.layout == 'adapter' else 'model'} folder: {folder}")
    return 0


def _export_trained(given: Path, options: Namespace) -> Path:
    if options.model is None:
        raise ValueError(f"set --model to the model folder that {given} was trained from")
    from vlm_crash.cli.checkpoints import read_checkpoint
    from vlm_crash.models.convert import export_trained
    from vlm_crash.parallel.checkpoint import is_sharded

    if given.is_dir() and not is_sharded(given):
        inside = sorted(str(path.relative_to(given)) for path in given.rglob("*.ckpt"))
        if inside:
            raise ValueError(f"{given} is a folder with checkpoints in it; give one of them: {', '.join(inside[:9])}")
    return export_trained(
        partial(read_checkpoint, given, REMEDY),
        options.model,
        options.out,
        options.layout,
        options.dtype,
        options.revision,
        options.overwrite,
    )


COMMANDS: dict[str, tuple[Callable[[ArgumentParser], None], Callable[[Namespace], int]]] = {
    "convert": (convert_parser, convert),
    "export": (export_parser, export),
}
