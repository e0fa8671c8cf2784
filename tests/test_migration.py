"""docs/migration.md: every row's command is accepted, and every name of the scripts has its row."""

import re
from pathlib import Path

import pytest
import yaml

from vlm_crash.cli import COMMANDS, main
from vlm_crash.data.clip_sources import samples_from_event_folders
from vlm_crash.data.frame_options import UNSET, sampling_of

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/migration.md").read_text(encoding="utf-8")
# What the scripts have: options, variables, files.
OLD_NAMES = """
--model-path --crash-dir --nearmiss-dir --num-videos --num-frames --output-dir
train.sh GPUS MIRCO_BATCH_SIZE ACCUMULATIVE_COUNTS
AV_crash_modified_r.csv AV_nearmiss_modified_r.csv crash/ nearmiss/ crash_ft.jsonl nearmiss_ft.jsonl diy_ft_data.json
crash_results.json nearmiss_results.json formatted-crash.csv formatted-nearmiss.csv formatted-normalized-crash.csv
formatted-normalized-nearmiss.csv evaluation_crash.csv evaluation_nearmiss.csv
"""


def rows() -> list[tuple[str, str]]:
    """(what the scripts had, the command that replaces it), placeholders filled in."""
    found = re.findall(r"^\| `([^`]+)`[^|]*\| `([^`]+)` \|", PAGE, flags=re.M)
    return [(old, re.sub(r"\bN\b", "4", command)) for old, command in found]


def accepted(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> dict:
    """The settings that a command line comes to, flattened; the parser refuses what it does not know."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["vlm_crash"])
    capsys.readouterr()
    code = main([*command.split(), "--print_config"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    flat: dict[str, object] = {}

    def flatten(prefix: str, value: object) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                flatten(f"{prefix}.{key}" if prefix else str(key), inner)
        else:
            flat[prefix] = value

    flatten("", yaml.safe_load(captured.out))
    return flat


@pytest.mark.parametrize(("old", "command"), rows(), ids=lambda value: value.split()[0])
def test_a_row_is_accepted_and_its_options_act(old, command, capsys, monkeypatch):
    settings = accepted(command, capsys, monkeypatch)
    assert command.split()[0] in COMMANDS
    for name, value in re.findall(r"--([\w.]+) (\S+)", command):
        if name != "config":
            given = settings[name][0] if isinstance(settings[name], list) else settings[name]
            assert str(given) == value, f"--{name} came out as {given}"


def test_every_option_and_file_of_the_scripts_has_a_row():
    firsts = {re.split(r"[ =]", old)[0] for old, _ in rows()}
    assert firsts == set(OLD_NAMES.split())


def test_the_old_defaults_hold(capsys, monkeypatch, tmp_path):
    for number in range(12):
        (tmp_path / f"{number}.mp4").touch()
    whole = re.search(r"The whole line: `([^`]+)`", PAGE)
    assert whole is not None
    settings = accepted(whole[1], capsys, monkeypatch)
    assert settings["data.num_frames"] is None, "as many as the model's folder says, and where it says nothing:"
    assert sampling_of(None, None, UNSET, {"num_frames": None, "rule": None}).num_frames == 32
    taken = samples_from_event_folders({"crash": tmp_path, "nearmiss": tmp_path}, settings["data.num_videos"])
    assert [sample.event for sample in taken] == ["crash"] * 10 + ["nearmiss"] * 10
    titan = accepted("fit --config titan.yaml", capsys, monkeypatch)
    assert (titan["data.batch_size"], titan["trainer.accumulate_grad_batches"]) == (1, 4)
    rates = [titan[f"model.lr_{tower}"] for tower in ("vision", "projector", "language")]
    assert rates == [2e-6, 1e-5, 1e-5]
    recipe = {name: titan[f"model.{name}"] for name in ("weight_decay", "warmup_ratio")}
    assert recipe == {"weight_decay": 0.0, "warmup_ratio": 0.03}
    assert titan["trainer.gradient_clip_val"] == 1.0
