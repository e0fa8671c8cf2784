"""The command line. The only package that knows LightningCLI and jsonargparse.

Enters: arguments. Leaves: an exit code. Heavy imports stay inside the commands: `--help` loads none of them.
"""

import sys
from collections.abc import Sequence

#: command -> (module that holds it, one line of help). `--help` lists exactly these.
COMMANDS = {
    "demo": ("commands", "render clips, fine-tune a tiny model, predict, score and report: everything in ten minutes"),
    "prepare": ("commands", "annotation CSVs + clip folders -> a dataset with frozen splits"),
    "check": ("commands", "every clip of a dataset or a folder decoded once -> clips.csv; bad ones are quarantined"),
    "audit": ("commands", "a prepared dataset -> leaks across its splits, shortcuts, label problems, and a page"),
    "frames": ("commands", "a clip -> the frames that the model sees, as pictures, and a contact sheet"),
    "fit": ("lightning_commands", "train"),
    "validate": ("lightning_commands", "loss and scores on the validation split"),
    "test": ("lightning_commands", "loss and scores on the test split"),
    "predict": ("lightning_commands", "clips -> predictions.jsonl and the old scripts' *_results.json"),
    "convert": ("commands", "an original OpenGVLab checkpoint -> a model folder in transformers' layout"),
    "export": ("commands", "a training checkpoint -> a model folder"),
    "evaluate": ("commands", "predictions + truth -> metrics.json and tables"),
    "compare": ("commands", "two evaluations of the same clips -> paired differences with intervals, and a verdict"),
    "triage": ("commands", "predictions of new clips + a calibration -> which answers to take, which to look at"),
    "plan": ("plan", "whether a config of fit fits the memory of so many GPUs, by part, and what to change if not"),
    "report": ("commands", "an evaluation folder -> one self-contained HTML page"),
    "doctor": ("doctor_command", "what works on this machine: cards, driver, kinds of numbers, readers, disk, memory"),
}


def usage() -> str:
    """The program's own help."""
    lines = [f"  {name:<10} {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: python -m vlm_crash <command> [--config FILE] [options]",
            "",
            "Dashcam clips -> crash and near-miss records, by a vision-language model.",
            "",
            "commands:",
            *lines,
            "",
            "`python -m vlm_crash <command> --help` lists a command's options; --version says the version.",
            "Exit codes: 0 done; 1 done, and the answer is no; 2 wrong input; 3 an error of ours, or a process of the",
            "run is lost; 130 Ctrl-C; 143 SIGTERM.",
        ]
    )


def main(args: Sequence[str] | None = None) -> int:
    """Run one command; the exit code says how it went."""
    args = list(sys.argv[1:] if args is None else args)
    if not args or args[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if args else 2
    if args[0] == "--version":
        from vlm_crash import __version__

        print(f"vlm_crash {__version__}")
        return 0
    from vlm_crash.cli.errors import run_guarded

    command, rest = args[0], args[1:]
    if command not in COMMANDS:
        from vlm_crash.schema.wording import closest

        meant = closest(command, COMMANDS)
        hint = f"; did you mean {meant}?" if meant else ""
        print(
            f"vlm_crash: there is no command {command!r}{hint}; commands: {', '.join(COMMANDS)}",
            file=sys.stderr,
        )
        return 2
    module = COMMANDS[command][0]
    if module == "lightning_commands" and rest in (["-h"], ["--help"]):
        module = "shipped_help"
    return run_guarded(command, rest, module)
