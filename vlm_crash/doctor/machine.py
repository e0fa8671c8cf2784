"""What is looked at without torch: versions, cores, memory, disks, the driver."""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from vlm_crash.doctor.lines import OK, PROBLEM, UNTRIED, WARNING, Line

GIB = 2**30


def gib(size: float) -> str:
    """
    >>> gib(3 * 2**29), gib(2**20)
    ('1.5 GiB', '0.001 GiB')
    """
    return f"{size / GIB:.1f} GiB" if size >= 0.1 * GIB else f"{size / GIB:.1g} GiB"


def version_lines() -> Iterator[Line]:
    """Python, and the packages against the ranges that vlm_crash was installed with."""
    python = f"{platform.python_version()}, {platform.platform()}"
    fits = (3, 11) <= sys.version_info[:2] < (3, 14)
    yield Line("Python", OK if fits else PROBLEM, python, "" if fits else "install Python 3.11, 3.12 or 3.13")
    try:
        from packaging.requirements import Requirement

        wanted = [Requirement(text) for text in metadata.requires("vlm_crash") or ()]
    except (ImportError, metadata.PackageNotFoundError) as error:
        yield Line("packages", UNTRIED, f"their ranges are not known: {error}", "pip install -e . (in the repository)")
        return
    wrong, checked = [], 0
    for requirement in wanted:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        checked += 1
        try:
            installed = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is not installed (wanted {requirement.specifier})")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            wrong.append(f"{requirement.name} {installed} is not {requirement.specifier}")
    if wrong:
        yield Line("packages", PROBLEM, "; ".join(wrong), "pip install -r requirements.lock")
    else:
        yield Line("packages", OK, f"{checked} of {checked} are within the ranges of vlm_crash")


def memory() -> tuple[int, int] | None:
    """Bytes of memory, and of it what is free; None: it cannot be told."""
    try:
        import psutil
    except ImportError:
        return None
    state = psutil.virtual_memory()
    return int(state.total), int(state.available)


def machine_line() -> Line:
    found = memory()
    cores = len(os.sched_getaffinity(0))
    if found is None:
        return Line("machine", WARNING, f"{cores} cores; psutil cannot be imported", "pip install psutil")
    return Line("machine", OK, f"{cores} cores, {gib(found[0])} of memory, {gib(found[1])} free")


def free_space(path: Path) -> tuple[Path, int]:
    """The nearest folder above that exists, and the bytes that are free there; OSError: it cannot be asked."""
    place = path.absolute()
    while not place.exists():
        place = place.parent
    return place, shutil.disk_usage(place).free


def ffmpeg_line() -> Line:
    path = shutil.which("ffmpeg")
    if path is None:
        return Line("FFmpeg", OK, "not installed; nothing needs it (PyAV and decord bring their own)")
    return Line("FFmpeg", OK, f"{path}; nothing needs it")


@dataclass(frozen=True)
class Driver:
    """The driver's version, and what nvidia-smi says of each card: name, compute capability, MiB."""

    version: str
    cards: tuple[tuple[str, tuple[int, int], int], ...]


def parse_driver(text: str) -> Driver | None:
    """From lines of `name, driver, compute capability, MiB`; None: there are none.

    >>> parse_driver("NVIDIA TITAN RTX, 570.86.10, 7.5, 24576")
    Driver(version='570.86.10', cards=(('NVIDIA TITAN RTX', (7, 5), 24576),))
    >>> parse_driver("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.")
    """
    rows = [[part.strip() for part in line.rsplit(",", 3)] for line in text.splitlines() if line.count(",") >= 3]
    cards = []
    for name, _, capability, size in rows:
        major, _, minor = capability.partition(".")
        if not (major.isdigit() and minor.isdigit()):
            return None
        cards.append((name, (int(major), int(minor)), int(size) if size.isdigit() else 0))
    return Driver(rows[0][1], tuple(cards)) if rows else None


def kernel_driver(place: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """The version of the driver that the kernel has loaded; None: there is none, or it does not say."""
    try:
        found = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)\s", place.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return found[1] if found else None


def ask_driver() -> tuple[Driver | None, Line]:
    """The driver and its cards, and the line that says so."""
    query = ["--query-gpu=name,driver_version,compute_cap,memory.total", "--format=csv,noheader,nounits"]
    try:
        asked = subprocess.run(["nvidia-smi", *query], capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError:
        version = kernel_driver()
        if version is not None:
            return Driver(version, ()), Line("NVIDIA cards", OK, f"driver {version}; there is no nvidia-smi to ask")
        return None, Line("NVIDIA cards", OK, "none (there is no nvidia-smi)")
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, Line("NVIDIA cards", PROBLEM, f"nvidia-smi does not answer ({error})", "restart the machine")
    driver = parse_driver(asked.stdout) if asked.returncode == 0 else None
    if driver is None:
        said = " ".join((asked.stdout or asked.stderr).split())[:200]
        remedy = "install the driver for the running kernel again, or restart the machine"
        return None, Line("NVIDIA cards", PROBLEM, f"nvidia-smi says: {said}", remedy)
    cards = ", ".join(f"{name} ({major}.{minor}, {size / 1024:.0f} GiB)" for name, (major, minor), size in driver.cards)
    return driver, Line("NVIDIA cards", OK, f"{len(driver.cards)}: {cards}; driver {driver.version}")
