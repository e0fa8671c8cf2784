"""The help of Lightning's commands without Lightning: loading it takes longer than a person waits for a help text.

Enters: a command. Leaves: its help as `tools/make_help.py` wrote it, where the versions that shape it are installed.
"""

from importlib.metadata import version
from importlib.resources import files

#: Their versions decide what the help says; the first line of each text names those that it was made with.
SHAPED_BY = ("jsonargparse", "lightning")


def versions_line() -> str:
    """The packages that shape a help text, with the versions that are installed."""
    return " ".join(f"{name}=={version(name)}" for name in SHAPED_BY)


def shipped_help(command: str) -> str | None:
    """The help of a command; None where there is none for the installed versions (then the parser itself is asked)."""
    file = files("vlm_crash") / "cli" / "help" / f"{command}.txt"
    if not file.is_file():
        return None
    versions, _, text = file.read_text(encoding="utf-8").partition("\n")
    return text if versions == versions_line() else None


def run(command: str, args: list[str]) -> int:
    """Print the help of one of Lightning's commands."""
    text = shipped_help(command)
    if text is None:
        from vlm_crash.cli import lightning_commands

        return lightning_commands.run(command, args)
    print(text, end="", flush=True)
    return 0
