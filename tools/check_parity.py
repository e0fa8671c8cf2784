"""Hold vlm_crash to what the original code computes: every golden of a folder, in fp32, eager and SDPA math.

Enters: a folder with README.md, checkpoints/, goldens/, inputs/, tome/, prompts.json and frame_indices.json, as
tests/parity describes; whatever of it there is, and everything that its README announces. Leaves: tables of the largest
difference of each kind; exit code 0 when every golden is met, else 1 with what is not on stderr.

    .venv/bin/python tools/check_parity.py [tests/parity]
"""

import argparse
import json
import logging
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from parity.checkpoints import check_variant
from parity.merging import check_tome
from parity.report import Report
from parity.texts import check_frame_indices, check_prompts
from safetensors import SafetensorError, safe_open

from vlm_crash.models.attention import set_attention


def announced(folder: Path) -> list[str]:
    """What should be there and is not: by README.md, by a golden's other half, by a checkpoint without goldens."""
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    variants = set(first_cells(text, r"\| variant \| case \|.*")) | {file.stem for file in folder.glob("goldens/*")}
    wanted = {f"goldens/{name}.{suffix}" for name in variants for suffix in ("json", "safetensors")}
    wanted |= {f"{name}.json" for name in ("frame_indices", "prompts") if f"`{name}.json`" in text}
    if "`tome/`" in text or (folder / "tome").is_dir():
        wanted |= {"tome/tome.json", "tome/tome.safetensors"}
    missing = [f"{file} is missing" for file in sorted(wanted) if not (folder / file).is_file()]
    for file in re.findall(r"Tensors in (goldens/\S+\.safetensors)", text):
        if (folder / file).is_file():
            with safe_open(folder / file, "pt") as goldens:
                names = set(first_cells(text, rf"#+ Tensors in {re.escape(file)}.*\n\| name \|.*")) - set(
                    goldens.keys()
                )
            missing += [f"{file}: golden {name} is missing" for name in sorted(names)]
    used = {
        Path(json.loads(file.read_text()).get("checkpoint", file.stem)).name for file in folder.glob("goldens/*.json")
    }
    alone = {checkpoint.name for checkpoint in folder.glob("checkpoints/*") if checkpoint.is_dir()} - used
    return missing + [f"checkpoints/{name} has no goldens" for name in sorted(alone)]


def first_cells(text: str, head: str) -> list[str]:
    """First cells of the rows of a Markdown table, found by the lines above its rule.

    >>> first_cells("| a | b |\\n|---|---|\\n| `x` | 1 |\\n| y | 2 |\\n", r"\\| a \\|.*")
    ['x', 'y']
    """
    table = re.search(rf"^{head}\n\|[-| ]+\n((?:\|.*\n?)*)", text, flags=re.M)
    return [line.split("|")[1].strip(" `") for line in table[1].splitlines()] if table else []


def check(folder: Path) -> Report:
    """Everything in the folder."""
    report = Report()
    checks: list[tuple[str, Callable[[], None]]] = [("folder", lambda: report.problems.extend(announced(folder)))]
    for file in sorted(folder.glob("goldens/*.json")):
        checks.append((file.stem, partial(check_variant, folder, file.stem, report)))
    parts = {"tome/tome.json": check_tome, "prompts.json": check_prompts, "frame_indices.json": check_frame_indices}
    checks += [(name, partial(part, folder, report)) for name, part in parts.items() if (folder / name).is_file()]
    for name, run in checks:
        try:
            run()
        except KeyError as error:
            report.problems.append(f"{name}: its json has no {error}")
        except (ValueError, OSError, SafetensorError) as error:
            report.problems.append(f"{name}: {error}")
    if not report.rows:
        report.problems.append(f"{folder} holds no goldens")
    return report


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path("tests/parity"), help="folder of goldens")
    folder = parser.parse_args(arguments).folder
    logging.disable(logging.WARNING)
    set_attention("math")
    report = check(folder)
    print(report.table())
    for problem in report.problems:
        print(f"not met: {problem}", file=sys.stderr)
    print(f"{folder}: {f'{len(report.problems)} not met' if report.problems else 'every golden is met'}")
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
