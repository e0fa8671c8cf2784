"""doctor's options; what it finds is tested in tests/doctor."""

import pytest

from tests.cli.conftest import ROOT
from vlm_crash.cli import main
from vlm_crash.doctor import Line


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--config titann.yaml", "did you mean titan.yaml?"),
        ("--confg titan.yaml", "unrecognized arguments: --confg titan.yaml; `doctor --help` lists the options"),
        ("--json", "argument --json: expected one argument"),
        ("--model.path m", "--model.path and --output_dir say more of a config; give --config, too"),
    ],
)
def test_wrong_input(wrong, args, message):
    assert message in wrong("doctor", *args.split())


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("warning", 0), ("not tried", 0), ("problem", 1)])
def test_exit_codes(monkeypatch, capsys, tmp_path, status, code):
    monkeypatch.setattr("vlm_crash.cli.doctor_command.examine", lambda needs: iter([Line("it", status, "so", "do")]))
    out = tmp_path / "below" / "doctor.json"
    assert main(["doctor", "--config", str(ROOT / "configs/titan.yaml"), "--json", str(out)]) == code
    text = capsys.readouterr().out
    assert f"{status:<10} it: so\n           -> do\n" in text and f"1 {status}" in text
    assert out.exists()
