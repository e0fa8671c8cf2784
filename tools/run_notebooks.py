"""Run the notebooks top to bottom and keep what they print and draw in them.

Enters: notebooks/*.ipynb and the finished demo in runs/demo, which two of them look at. Leaves: the same files with new
outputs; a notebook whose cell fails is left as it was. Run it after changing a notebook or what it calls:

    .venv/bin/python tools/run_notebooks.py
"""

import argparse
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TIMEOUT_S = 900


def run(notebook: Path, folder: Path = ROOT) -> nbformat.NotebookNode:
    """The notebook with its outputs, run in a kernel of this interpreter whose working folder is `folder`.

    Raises:
        CellExecutionError: with the cell and its traceback.
    """
    content = nbformat.read(notebook, as_version=4)
    NotebookClient(content, timeout=TIMEOUT_S, resources={"metadata": {"path": str(folder)}}).execute()
    for cell in content.cells:
        cell.metadata.pop("execution", None)  # times of day: they would change the file at every run
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/jpeg" in data:
                data.pop("image/png", None)  # the same picture, seven times as large
    return content


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", type=Path, nargs="*", default=NOTEBOOKS, help="Which ones; unset: all.")
    for notebook in parser.parse_args().notebooks:
        try:
            content = run(notebook)
        except CellExecutionError as error:
            print(f"{notebook}: {error}", file=sys.stderr)
            return 1
        nbformat.write(content, notebook)
        print(f"{notebook}: {notebook.stat().st_size / 1024:.0f} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
