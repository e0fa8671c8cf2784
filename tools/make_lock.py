"""Write requirements.lock and environment.yml from what is installed in the running environment.

Enters: the environment of the interpreter that runs this. Leaves: the two files, one exact pin a line, without this
project, pip, local version parts or index addresses. Run it after changing what is installed:

    .venv/bin/python tools/make_lock.py
"""

import re
import sys
from importlib.metadata import distributions
from pathlib import Path

LEFT_OUT = {"pip", "wheel", "vlm-crash"}
# PyPI has these for Linux on x86-64 only; torch's wheels for other machines do not ask for them.
LINUX_ONLY = re.compile(r"^(nvidia-|cuda-|triton$)")
LINUX_MARKER = ' ; sys_platform == "linux" and platform_machine == "x86_64"'
LOCK = """\
# What vlm_crash was tested with: Python {python}, Linux x86-64.
#   pip install -r requirements.lock && pip install --no-deps --no-build-isolation -e .
# Written by tools/make_lock.py; environment.yml holds the same versions.
{pins}
"""
CONDA = """\
# The versions of requirements.lock for users of conda; written by tools/make_lock.py.
#   conda env create -f environment.yml && conda activate vlm_crash && pip install --no-deps --no-build-isolation -e .
name: vlm_crash
channels:
  - conda-forge
dependencies:
  - python={python}
  - pip
  - pip:
{pins}
"""


def pin_lines() -> list[str]:
    """One requirement a line, by name as PyPI's addresses have it, without a local version part (2.1+cpu is 2.1)."""
    found = {re.sub(r"[-_.]+", "-", d.metadata["Name"]).lower(): d.version.split("+")[0] for d in distributions()}
    return [
        f"{name}=={found[name]}{LINUX_MARKER if LINUX_ONLY.match(name) else ''}"
        for name in sorted(found)
        if name not in LEFT_OUT
    ]


if __name__ == "__main__":
    root, pins = Path(__file__).parents[1], pin_lines()
    python = ".".join(map(str, sys.version_info[:2]))
    (root / "requirements.lock").write_text(LOCK.format(python=python, pins="\n".join(pins)))
    quoted = "\n".join(f"      - '{pin}'" if ";" in pin else f"      - {pin}" for pin in pins)
    (root / "environment.yml").write_text(CONDA.format(python=python, pins=quoted))
    print(f"requirements.lock and environment.yml: {len(pins)} pins")
