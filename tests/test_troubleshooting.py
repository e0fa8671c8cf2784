"""docs/troubleshooting.md: every heading is something that the program, a library below it, or make prints."""

import ast
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
HEADINGS = re.findall(r"^### `(.+?)`", PAGE, flags=re.M)
# What others print: the shell, pip, and names in TensorBoard.
NOT_OURS = {"Killed", "ERROR: No matching distribution found for ..."}
LIGHTNING = "pytorch/trainer/setup.py"


def texts(path: Path) -> list[str]:
    """The strings of a source file; what is put into them by a value or by %s becomes `...`."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            pieces = [part.value if isinstance(part, ast.Constant) else "..." for part in node.values]
            found.append("".join(map(str, pieces)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(re.sub(r"%[sd]", "...", node.value))
    return found


@cache
def printed() -> str:
    lightning = find_spec("lightning")
    assert lightning is not None and lightning.origin is not None
    files = [*(ROOT / "vlm_crash").rglob("*.py"), Path(lightning.origin).parent / LIGHTNING]
    make = re.sub(r"\$\([^()]*(\([^()]*\))?[^()]*\)", "...", (ROOT / "Makefile").read_text(encoding="utf-8"))
    return "\n".join([*(text for path in files for text in texts(path)), re.sub(r'" \\\n\s*"', " ", make)])


@pytest.mark.parametrize("heading", [heading for heading in HEADINGS if heading not in NOT_OURS])
def test_a_heading_is_what_is_printed(heading):
    pieces = [piece.strip(" ;,:()'") for piece in re.split(r"\.\.\.|failed: ", heading)]
    missing = [piece for piece in pieces if len(piece) > 3 and not found(piece)]
    assert missing == []


def found(piece: str) -> bool:
    """Whether the piece stands in one string, where values may have been put in (True, a name of a tower)."""
    pattern = re.escape(piece).replace(r"True\ \(cuda\)", r"\S+").replace("False", r"\S+").replace("True", r"\S+")
    return re.search(pattern, printed()) is not None


def test_every_kind_of_trouble_has_its_section():
    sections = set(re.findall(r"^## (.+)", PAGE, flags=re.M))
    assert sections >= {
        "Out of memory",
        "It is slow",
        "The GPU is not used",
        "The model folder",
        "Versions",
        "Clips that cannot be read",
        "No disk space",
    }
