"""The house's rules as pure functions over source files; test_house.py applies them to this repository."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

MIDDLE = {"data", "models", "parallel", "metrics"}
GROUND = {"schema", "video"}
SYSTEM = {"lightning_module", "callbacks", "evaluation", "demo", "doctor"}
# Rooms of vlm_crash and the rooms each may import (itself always). A new room needs a line here.
MAY_IMPORT: dict[str, set[str]] = (
    {room: set() for room in GROUND}
    | dict.fromkeys(MIDDLE, GROUND)
    | dict.fromkeys(SYSTEM, GROUND | MIDDLE)
    # The analyzer is a face, as cli is one: the package's own name stands for it.
    | {"analyzer": GROUND | MIDDLE | {"lightning_module"}, "__init__": {"analyzer"}}
    | {"cli": GROUND | MIDDLE | SYSTEM, "__main__": {"cli"}}
)


def imported_rooms(source: str, module: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Line and room of every import from vlm_crash, wherever it stands; `module` is the path inside the package."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = ("vlm_crash", *module)[: len(module) + 1 - node.level] if node.level else ()
            base = ".".join((*above, *([node.module] if node.module else [])))
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "vlm_crash" and len(parts) > 1 and not parts[1].startswith("__"):
                yield node.lineno, parts[1]


def wrong_imports(package: Path) -> list[str]:
    """Imports that go sideways or down, and rooms without a rule, one line each."""
    problems = []
    for path in sorted(package.rglob("*.py")):
        module = path.relative_to(package).with_suffix("").parts
        room = module[0]
        if room not in MAY_IMPORT:
            problems.append(f"{room}: no rule says what it may import; give it one in tests/house_rules.py")
            continue
        for line, other in imported_rooms(path.read_text(encoding="utf-8"), module):
            if other != room and other not in MAY_IMPORT[room]:
                problems.append(f"{'/'.join(module)}.py:{line} imports {other}; {room} may import {MAY_IMPORT[room]}")
    return problems


def num_code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring, which may say as much as a user needs."""
    docstring = function.body[0] if ast.get_docstring(function, clean=False) is not None else None
    said = (docstring.end_lineno or 0) - docstring.lineno + 1 if docstring else 0
    return (function.end_lineno or 0) - function.lineno + 1 - said


def long_functions(path: Path, most: int) -> list[str]:
    """Functions of a file that have more lines than that, one line each."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [
        f"{path}:{node.lineno} {node.name} has {length} lines"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, functions) and (length := num_code_lines(node)) > most
    ]


def anchors(markdown: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+?) *$", re.sub(r"```.*?```", "", markdown, flags=re.S), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    """Relative links of a page whose file or heading does not exist."""
    text = page.read_text(encoding="utf-8")
    problems = []
    for link in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists():
            problems.append(f"{page.name}: {link} does not exist")
        elif anchor and anchor not in anchors(target.read_text(encoding="utf-8")):
            problems.append(f"{page.name}: {link} names no heading")
    return problems


def pins(text: str) -> dict[str, str]:
    """name -> 'version ; marker' of every line of a lock or of a conda file's pip section."""
    return dict(re.findall(r"""^(?:\s+- )?['"]?([a-z0-9-]+)==([^'"\n]+)""", text, flags=re.M))
