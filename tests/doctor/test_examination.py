"""The round on this machine, and on broken ones; what is broken is planted before a process of its own starts."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT
from vlm_crash.cli import main
from vlm_crash.doctor.children import tried
from vlm_crash.doctor.examination import examine
from vlm_crash.doctor.lines import Line
from vlm_crash.doctor.machine import Driver
from vlm_crash.doctor.needs import Needs, read_needs

BASE = ROOT / "vlm_crash/demo/base"


def doctor(broken: Path, *args: object) -> tuple[int, str, dict[str, dict[str, str]]]:
    """Exit code, text and lines of the command, with modules of a folder before all others."""
    path = os.pathsep.join([str(broken), str(ROOT)])
    out = broken / "doctor.json"
    done = subprocess.run(
        [sys.executable, "-m", "vlm_crash", "doctor", "--json", out, *map(str, args)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    content = json.loads(out.read_text())
    assert content["exit_code"] == done.returncode
    for line in content["lines"]:
        assert f"{line['status']:<10} {line['name']}: {line['text']}" in done.stdout
    return done.returncode, done.stdout, {line["name"]: line for line in content["lines"]}


def test_this_machine(tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text((ROOT / "configs/titan.yaml").read_text().replace("accelerator: auto", "accelerator: cpu"))
    code, _, lines = doctor(tmp_path, "--config", config, "--model.path", BASE, "--output_dir", tmp_path / "new")
    assert code == 0
    tries = ("CPU, float16", "CPU, float32", "CPU, math attention", "PyAV", "decord", "gloo", "model")
    assert {name: lines[name]["status"] for name in tries} == dict.fromkeys(tries, "ok")
    assert "3,662,528 parameters (vision 1,681,600, projector 161,408, language 1,819,520)" in lines["model"]["text"]
    assert "forward and backward, with a mask, heads of 32" in lines["CPU, math attention"]["text"], "the model's own"
    assert "others are reached is not tried" in lines["gloo"]["text"]
    # 36 bytes a parameter: two states of 12, two of the weights alone, the model folder
    assert "take up to 0.1 GiB" in lines[f"disk of {tmp_path / 'new'}"]["text"]
    assert not (tmp_path / "new").exists()


def test_broken_packages(tmp_path):
    """torch that cannot be imported, decord that kills its process, no parser for the other commands."""
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.13: cannot open shared object file')")
    (tmp_path / "decord.py").write_text("import os; os.abort()")
    (tmp_path / "jsonargparse.py").write_text("raise ImportError('half an installation')")
    code, text, lines = doctor(tmp_path, "--config", ROOT / "configs/titan.yaml")
    assert code == 1
    assert lines["torch"]["status"] == "problem" and "libcudart.so.13" in lines["torch"]["text"]
    assert lines["decord"]["status"] == "warning" and "ended by SIGABRT" in lines["decord"]["text"]
    assert lines["PyAV"]["status"] == "ok"
    assert "problem" in text.splitlines()[-1]


def test_no_reader_is_a_problem(tmp_path):
    (tmp_path / "av.py").write_text("raise OSError('libx264.so: wrong ELF class')")
    (tmp_path / "torch.py").write_text("raise ImportError('not looked at here')")
    code, _, lines = doctor(tmp_path)
    assert code == 1
    assert lines["PyAV, writing"]["status"] == "problem" and "wrong ELF class" in lines["PyAV, writing"]["text"]
    assert lines["readers"]["status"] == "not tried"


def test_what_hangs_is_told(tmp_path, monkeypatch):
    (tmp_path / "av.py").write_text("import time; time.sleep(600)")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    (line,) = tried("decoders", patience_s=8)  # it must come as far as to import av
    assert line["status"] == "problem" and "no answer within 8 s while trying PyAV, writing" in line["text"]


def facts_of(monkeypatch: pytest.MonkeyPatch, torch: list[dict], model: dict | None = None) -> None:
    """What the children would say of another machine; the parent is the real one."""
    said = {"torch": torch, "decoders": [], "model": [model] if model else []}
    monkeypatch.setattr("vlm_crash.doctor.examination.tried", lambda what, *_: iter(said[what]))


LARGE = {"fact": "model", "parameters": {"vision": 300_000_000, "language": 7_700_000_000_000}, "side": 448}
CARD = {"fact": "card", "number": 0, "capability": [7, 5], "total": 24 * 2**30, "free": 23 * 2**30}


def test_what_does_not_fit_this_machine(monkeypatch):
    facts_of(monkeypatch, [CARD], LARGE)
    monkeypatch.setattr("vlm_crash.doctor.examination.SHM", Path("/proc"))
    needs = replace(read_needs(ROOT / "configs/titan.yaml", model="m"), offloads=True)
    found = {line.name: line for line in examine(needs)}
    assert found["disk of runs/latest"].status == "problem"
    assert found["memory of the machine"].status == "problem"
    assert found["shared memory (/dev/shm)"].status == "problem"
    assert found["devices of titan.yaml"].status == "ok"


def line(name: str) -> dict[str, str]:
    return {"name": name, "status": "problem", "text": "does not work", "remedy": ""}


@pytest.mark.parametrize(
    ("needs", "problems"),
    [
        (Needs(), {"CPU, float32", "GPU 0, float32"}),
        (Needs("a.yaml", accelerator="gpu", dtype="float16"), {"CPU, float32", "GPU 0, float16", "GPU 0, float32"}),
        (Needs("a.yaml", attention="flash"), {"CPU, float32", "GPU 0, float32", "GPU 0, flash attention"}),
        (Needs("a.yaml", accelerator="cpu", dtype="bfloat16"), {"CPU, float32", "CPU, bfloat16"}),
        (Needs("a.yaml", accelerator="gpu", is_distributed=True), {"CPU, float32", "GPU 0, float32", "nccl", "gloo"}),
        (Needs("a.yaml", accelerator="cpu", is_distributed=True), {"CPU, float32", "gloo"}),
    ],
)  # fmt: skip
def test_a_fault_is_a_problem_where_it_is_needed(monkeypatch, needs, problems):
    names = [
        "CPU, float32",
        "CPU, bfloat16",
        "GPU 0, float16",
        "GPU 0, float32",
        "GPU 0, flash attention",
        "nccl",
        "gloo",
    ]
    facts_of(monkeypatch, [CARD, *map(line, names)])
    found = {item.name: item.status for item in examine(needs) if item.name in names}
    assert {name for name, status in found.items() if status == "problem"} == problems
    assert {name for name, status in found.items() if status == "warning"} == set(names) - problems


OLD = Driver("570.86.10", (("NVIDIA TITAN RTX", (7, 5), 24576), ("NVIDIA GTX 1080", (6, 1), 8192)))


@pytest.mark.parametrize(("accelerator", "status"), [("auto", "problem"), ("cpu", "warning")])
def test_a_driver_that_is_too_old(monkeypatch, accelerator, status):
    torch = {"fact": "torch", "version": "2.14.1+cu130", "cuda": "13.0", "architectures": ["sm_75", "sm_80"]}
    facts_of(monkeypatch, [torch, line("CPU, float32"), {"fact": "no_cuda", "why": "the driver is too old"}])
    asked = (OLD, Line("NVIDIA cards", "ok", ""))
    monkeypatch.setattr("vlm_crash.doctor.examination.ask_driver", lambda: asked)
    found = {item.name: item for item in examine(Needs("a.yaml", accelerator=accelerator))}
    assert found["driver"].status == found["GPUs in torch"].status == status
    assert "+cu126" in found["driver"].remedy and "the driver is too old" in found["GPUs in torch"].text
    assert found["kernels for the cards, 7.5"].status == "ok"
    assert found["kernels for the cards, 6.1"].status == status
    assert found["CPU, float32"].status == "problem"


def test_more_devices_than_there_are(monkeypatch):
    facts_of(monkeypatch, [CARD])
    found = {item.name: item for item in examine(Needs("a.yaml", devices=8))}
    assert found["devices of a.yaml"].status == "problem"
    assert found["devices of a.yaml"].remedy == "set --trainer.devices 1"


def test_a_gpu_that_is_asked_for_and_not_there(monkeypatch):
    facts_of(monkeypatch, [])
    found = {item.name: item for item in examine(Needs("a.yaml", accelerator="gpu"))}
    assert found["devices of a.yaml"].status == "problem"


@pytest.mark.gpu
def test_on_a_gpu(tmp_path, capsys):
    import torch

    out = tmp_path / "doctor.json"
    code = main(["doctor", "--json", str(out)])
    lines = {item["name"]: item for item in json.loads(out.read_text())["lines"]}
    assert code == 0, capsys.readouterr().out
    capability = ".".join(map(str, torch.cuda.get_device_capability()))
    kernels = f"kernels for the cards, {capability}"
    working = ("GPU 0", kernels, "GPU 0, float16", "GPU 0, float32", "GPU 0, math attention", "nccl", "driver")
    assert {name: lines[name]["status"] for name in working} == dict.fromkeys(working, "ok")
    assert "not tried: sums over several GPUs, other machines" in lines["nccl"]["text"]
    assert "heads of 64 and 128" in lines["GPU 0, math attention"]["text"]
    is_new = torch.cuda.get_device_capability() >= (8, 0)
    assert (lines["GPU 0, flash attention"]["status"] == "ok") == is_new
    assert ("emulation" in lines["GPU 0, bfloat16"]["text"]) != is_new
