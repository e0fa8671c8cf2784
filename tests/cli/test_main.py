"""The program itself: its help, its version, its words for what it does not know."""

import subprocess
import sys

import pytest

from tests.cli.conftest import ROOT
from vlm_crash import __version__
from vlm_crash.cli import COMMANDS


def test_help_lists_the_commands(capsys, say):
    from vlm_crash.cli import main

    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {command} " in text for command in COMMANDS)


def test_no_command_and_a_wrong_one(say):
    from vlm_crash.cli import main

    assert main([]) == 2
    code, message = say("predit")
    assert code == 2
    assert "there is no command 'predit'; did you mean predict?" in message


def test_version(capsys):
    from vlm_crash.cli import main

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"vlm_crash {__version__}\n"


@pytest.mark.parametrize("args", [["--help"], ["prepare", "--help"], ["evaluate", "--help"], ["report", "--help"]])
def test_help_loads_no_torch(args):
    code = (
        "import sys; from vlm_crash.cli import main; code = main(sys.argv[1:]); "
        "heavy = {'torch', 'lightning', 'transformers', 'torchvision', 'decord', 'av', 'sentence_transformers'}; "
        "sys.exit(code or ' '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, *args], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_reader_that_leaves_early_is_no_error():
    line = f"{sys.executable} -m vlm_crash fit --help | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: vlm_crash ")


def test_our_options_are_explained(capsys, monkeypatch):
    from vlm_crash.cli import main

    monkeypatch.setattr(sys, "argv", ["vlm_crash"])
    assert main(["predict", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for words in (
        "--data.num_videos NUM_VIDEOS most clips per event to predict; 0: all.",
        "--model.vision_chunk VISION_CHUNK frames that go through the vision tower at once",
        "--output_dir OUTPUT_DIR Folder for all of a run's files.",
        "--data.prompt PROMPT question to ask: full",
    ):
        assert words in text
