"""The program itself: its help, its version, its words for what it does not know."""

import io
import json
import subprocess
import sys

import pytest
from jsonargparse import ArgumentParser

from tests.cli.conftest import ROOT
from vlm_crash import __version__
from vlm_crash.cli import COMMANDS, main
from vlm_crash.cli.commands import _prepare_parser
from vlm_crash.cli.shipped_help import shipped_help
from vlm_crash.video.guarded import CLIP_TIMEOUT_S

LIGHTNING = [command for command, (module, _) in COMMANDS.items() if module == "lightning_commands"]


def test_help_lists_the_commands(capsys, say):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {command} " in text for command in COMMANDS)


def test_no_command_and_a_wrong_one(say):
    assert main([]) == 2
    code, message = say("predit")
    assert code == 2
    assert "there is no command 'predit'; did you mean predict?" in message


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"vlm_crash {__version__}\n"


@pytest.mark.parametrize("args", [["--help"], *([command, "--help"] for command in COMMANDS)], ids=" ".join)
def test_help_loads_no_torch(args):
    code = (
        "import sys; from vlm_crash.cli import main; code = main(sys.argv[1:]); "
        "heavy = {'torch', 'lightning', 'transformers', 'torchvision', 'decord', 'av', 'sentence_transformers'}; "
        "sys.exit(code or ' '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, *args], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_evaluate_refuses_it_refuses_before_torch_is_loaded(tmp_path):
    """Settings, and files that are not there, each in its turn."""
    there = tmp_path / "predictions.jsonl"
    there.touch()
    here = [str(there), "--truth", str(there), "--out"]
    calls = [
        ([*here, "o", "--seed", "-1"], "seed=-1 is below 0"),
        (["nothere", "--truth", "t", "--out", "o"], "no such predictions: nothere; give the folder"),
        ([str(there), "--truth", "nothere", "--out", "o"], "no such truth: nothere; give the folder"),
        ([*here, "o", "--blind", "nothere"], "no such predictions: nothere"),
        ([*here, "o", "--annotators", str(tmp_path), str(there)], f"annotators: {tmp_path}: it is a folder"),
        ([*here, str(there)], f"--out {there}: {there} is a file"),
    ]
    code = (
        "import json, sys; from vlm_crash.cli import main; "
        "codes = [main(['evaluate', '--predictions', *args]) for args in json.loads(sys.argv[1])]; "
        "print(*codes, *{'torch', 'sklearn', 'transformers'} & set(sys.modules))"
    )
    args = json.dumps([args for args, _ in calls])
    done = subprocess.run([sys.executable, "-c", code, args], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2"] * len(calls)
    for line, (_, message) in zip(done.stderr.splitlines(), calls, strict=True):
        assert message in line


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="argparse lays its text out by its own version")
def test_shipped_help_is_the_parsers_own(tmp_path):
    # In a process of its own: "known subclasses" are all that the tests of this one have loaded.
    subprocess.run([sys.executable, "tools/make_help.py", tmp_path], cwd=ROOT, check=True)
    for command in LIGHTNING:
        made = (tmp_path / f"{command}.txt").read_text(encoding="utf-8").partition("\n")[2]
        assert shipped_help(command) == made, "run tools/make_help.py"


def test_other_versions_have_the_parsers_help(monkeypatch, capsys):
    monkeypatch.setattr("vlm_crash.cli.shipped_help.version", lambda name: "0")
    assert shipped_help("fit") is None
    assert main(["fit", "--help"]) == 0
    assert "--model.path PATH" in capsys.readouterr().out


def test_a_reader_that_leaves_early_is_no_error():
    line = f"{sys.executable} -m vlm_crash fit --help | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: vlm_crash ")


def test_a_notebook_has_another_stdout(say, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert say("report", "nowhere")[0] == 2


def test_our_options_are_explained(capsys, monkeypatch):
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


def test_prepare_looks_at_a_clip_as_long_as_the_reader_does():
    parser = ArgumentParser()
    _prepare_parser(parser)
    assert parser.get_defaults().clip_timeout_s == CLIP_TIMEOUT_S
