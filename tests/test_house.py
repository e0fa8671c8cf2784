"""The house: imports go up only, files stay small, versions agree, documents tell the truth about files."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import warnings
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tests.house_rules import anchors, broken_links, long_functions, pins, wrong_imports

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "vlm_crash"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
CONFIGS = sorted(ROOT.glob("configs/*.yaml"))
SOURCES = sorted([*PACKAGE.rglob("*.py"), *ROOT.glob("tools/**/*.py"), *ROOT.glob("tests/**/*.py")])


def tracked() -> list[Path]:
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git clone")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in names.split("\0") if name and (ROOT / name).is_file()]


def test_imports_go_up_only():
    assert wrong_imports(PACKAGE) == []


def test_the_import_rule_sees_every_way_to_import(tmp_path):
    (tmp_path / "video").mkdir()
    (tmp_path / "video/reader.py").write_text("from vlm_crash.schema import records\nfrom . import clip_files\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/collate.py").write_text("def f():\n    import vlm_crash.models.attention\n")
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo/scenes.py").write_text("from ..evaluation.report import page\nfrom vlm_crash import cli\n")
    (tmp_path / "attic.py").write_text("")
    found = wrong_imports(tmp_path)
    assert [line.split(";")[0] for line in found] == [
        "attic: no rule says what it may import",
        "data/collate.py:2 imports models",
        "demo/scenes.py:1 imports evaluation",
        "demo/scenes.py:2 imports cli",
        "video/reader.py:1 imports schema",
    ]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_small(path):
    num_lines = len(path.read_text(encoding="utf-8").splitlines())
    if num_lines > 300:
        warnings.warn(f"{path.relative_to(ROOT)} has {num_lines} lines; 150 is usual, 400 the end", stacklevel=1)
    assert num_lines <= 400
    assert long_functions(path, most=60) == []


def test_no_tracked_file_is_big_and_none_names_a_machine():
    machine = re.compile(r"/(?:work|root)/[\w.]|/home[/]\w|/Users[/]\w|file:[/]{3}|\bindex-url\b")
    problems = []
    for path in tracked():
        if path.stat().st_size > 8 * 2**20:
            problems.append(f"{path.relative_to(ROOT)} has more than 8 MiB")
        content = path.read_bytes()
        if b"\0" in content or path.name == "test_house.py":
            continue
        lines = content.decode("utf-8").splitlines()
        problems += [f"{path.relative_to(ROOT)}:{n}: {line}" for n, line in enumerate(lines, 1) if machine.search(line)]
    assert problems == []


def test_conda_has_the_versions_of_the_lock():
    lock = (ROOT / "requirements.lock").read_text()
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    *condas, pip = conda["dependencies"]
    assert pip["pip"] == [line for line in lock.splitlines() if line and not line.startswith("#")]
    assert condas == ["python=3.11", "pip"]


def test_the_lock_is_exact_and_within_the_ranges():
    text = (ROOT / "requirements.lock").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    locked = {name: version.split(" ;")[0] for name, version in pins(text).items()}
    assert len(locked) == len(lines)
    assert not [version for version in locked.values() if "+" in version]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    for requirement in map(Requirement, wanted):
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        assert locked[name] in requirement.specifier, requirement


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_config_opens_with_purpose_hardware_and_command(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    header = "\n".join(lines[: next(n for n, line in enumerate(lines) if not line.startswith("#"))])
    for word in ("purpose:", "hardware:"):
        assert word in header.lower(), f"{path.name} does not say its {word}"
    assert re.search(rf"(python -m vlm_crash|vlm-crash) \w+ .*{re.escape(path.name)}|make demo", header)


def test_every_make_target_that_is_mentioned_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    texts = {page: page.read_text(encoding="utf-8") for page in [*PAGES, ROOT / ".ci/run"]}
    for page, text in texts.items():
        mentioned = set(re.findall(r"(?:`|^\s*|step )make ([a-z-]+)", text, flags=re.M))
        assert mentioned <= targets, f"{page.name} mentions targets that the Makefile does not have"
    assert {"demo", "test", "lint"} <= targets
    assert all(f"make {target}" in texts[ROOT / "README.md"] for target in ("demo", "test", "lint"))


def test_a_second_make_installs_nothing(tmp_path):
    if shutil.which("make") is None:
        pytest.skip("no make")
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)

    # `make test` runs this suite: what that make tells the makes below it would change what this one prints.
    outside = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}

    def steps() -> str:
        command = ["make", "-n", "test", f"PYTHON={sys.executable}"]
        return subprocess.run(command, cwd=tmp_path, env=outside, capture_output=True, text=True, check=True).stdout

    first = steps()
    assert "pip install" in first and "-m pytest" in first
    stamp = re.search(r"touch (\.venv/\.installed-\d+)", first)
    assert stamp is not None
    (tmp_path / ".venv").mkdir()
    (tmp_path / stamp[1]).touch()
    assert re.fullmatch(r"PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 \.venv/bin/python -m pytest [^\n]+\n", steps())
    with (tmp_path / "requirements.lock").open("a") as lock:
        lock.write("# changed\n")
    assert "pip install" in steps()


def test_the_tree_in_the_readme_is_the_house():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = text.split("```\nvlm_crash/\n")[1].split("```")[0]
    inside = set(re.findall(r"^  ([\w.]+)/? ", tree, flags=re.M))
    outside = set(re.findall(r"^([\w.]+)/ ", tree, flags=re.M))
    rooms = {path.name for path in PACKAGE.iterdir() if path.suffix == ".py" or list(path.glob("*.py"))}
    assert inside == rooms - {"__init__.py"}
    assert [name for name in outside if not (ROOT / name).is_dir()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_resolve(page):
    assert broken_links(page) == []


def test_a_link_to_nothing_is_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One thing: done\n[a](#one-thing-done) [b](#two) [c](gone.md) [d](https://example.org)\n")
    assert anchors(page.read_text()) == {"one-thing-done"}
    assert broken_links(page) == ["page.md: #two names no heading", "page.md: gone.md does not exist"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder that holds what `pip install .` would put into site-packages."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    unneeded = shutil.ignore_patterns("__pycache__", ".*", "runs", "tests", "build", "*.egg-info")
    shutil.copytree(ROOT, source, ignore=unneeded, dirs_exist_ok=True)
    build = "from setuptools import build_meta; import sys; build_meta.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(target)], cwd=source, check=True, capture_output=True)
    with zipfile.ZipFile(next(target.glob("*.whl"))) as wheel:
        wheel.extractall(target)
    return target


def test_everything_the_package_reads_ships_with_it(installed):
    data = [path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    missing = [str(path) for path in data if not (installed / path.relative_to(ROOT)).exists()]
    configs = [path.relative_to(ROOT / "configs") for path in ROOT.glob("configs/**/*") if path.is_file()]
    missing += [str(path) for path in configs if not (installed / "vlm_crash/_configs" / path).exists()]
    assert missing == []


def test_an_installed_package_finds_its_configs_from_anywhere(installed, tmp_path):
    command = [sys.executable, "-m", "vlm_crash", "fit", "--config", "titan.yaml", "--print_config"]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert yaml.safe_load(result.stdout)["trainer"]["precision"] == "16-mixed"
