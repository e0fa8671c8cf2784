"""Write the help texts that ship with the package (vlm_crash/cli/help/), from the parsers themselves.

Run it after a change of an option, or of the versions of lightning or jsonargparse; another folder than the package's
may be named:

    .venv/bin/python tools/make_help.py [FOLDER]
"""

import contextlib
import io
import os
import sys
from pathlib import Path
from unittest import mock

from vlm_crash.cli import COMMANDS
from vlm_crash.cli.lightning_commands import run
from vlm_crash.cli.shipped_help import versions_line

FOLDER = Path(__file__).parents[1] / "vlm_crash" / "cli" / "help"
WIDTH = "100"


def live_help(command: str) -> str:
    """The help of one of Lightning's commands, as its parser prints it."""
    text = io.StringIO()
    # A width of its own, and no trace of how this program was called.
    settings = mock.patch.dict(os.environ, {"COLUMNS": WIDTH}), mock.patch.object(sys, "argv", ["vlm_crash"])
    with settings[0], settings[1], contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        run(command, ["--help"])
    return text.getvalue()


def main(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for command, (module, _) in COMMANDS.items():
        if module == "lightning_commands":
            (folder / f"{command}.txt").write_text(f"{versions_line()}\n{live_help(command)}", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
