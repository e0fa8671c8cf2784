"""`demo`: every command of the package, one after the other, on clips rendered here.

Leaves in the output folder: clips/, dataset/, fit/, predictions/, blind/, evaluation/, report.html and demo.json, whose
figures can be computed again from the files beside it.
"""

import importlib
import json
import logging
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import psutil
from jsonargparse import Namespace

log = logging.getLogger(__name__)

BASE_MODEL = Path(str(files("vlm_crash") / "demo" / "base"))


class PeakMemory:
    """Largest proportional set size of this process and its children, in GiB, looked at every half second."""

    def __enter__(self) -> "PeakMemory":
        self.gib = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._stop.wait(0.5):
            total = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    total += process.memory_full_info().pss
                except (psutil.Error, AttributeError):
                    continue
            self.gib = max(self.gib, total / 2**30)


def _command(args: Sequence[str | Path]) -> None:
    """Run a command of ours in this process, as a user would type it."""
    from vlm_crash.cli import COMMANDS

    words = [str(arg) for arg in args]
    print(f"\n$ python -m vlm_crash {' '.join(words)}", flush=True)
    start = time.perf_counter()
    code = importlib.import_module(f"vlm_crash.cli.{COMMANDS[words[0]][0]}").run(words[0], words[1:])
    assert code == 0, f"{words[0]} ended with {code}"
    print(f"  {words[0]}: {time.perf_counter() - start:.0f} s", flush=True)


def demo(options: Namespace) -> int:
    """Render, prepare, fit, predict (with the clips, and blind), evaluate, report; print the figures."""
    start = time.perf_counter()
    out = Path(options.out)
    if out.exists() and any(out.iterdir()) and not (out / ".demo").exists():
        raise ValueError(f"{out} is not empty and was not made by demo; set --out to another folder")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / ".demo").touch()
    with PeakMemory() as memory:
        render_seconds = _render(out / "clips", options)
        _steps(out, options)
        figures = _figures(out)
    figures["render_seconds"] = round(render_seconds, 1)
    figures["seconds"] = round(time.perf_counter() - start, 1)
    figures["peak_memory_gib"] = round(memory.gib, 2)
    (out / "demo.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(_summary(figures, out))
    return 0


def _render(clips: Path, options: Namespace) -> float:
    """Write the clips and their CSVs; the seconds that it took."""
    from vlm_crash.demo.clips import write_dataset

    start = time.perf_counter()
    write_dataset(clips, options.num_clips, options.seed)
    seconds = time.perf_counter() - start
    print(f"{options.num_clips} clips rendered: {seconds:.0f} s", flush=True)
    return seconds


def _steps(out: Path, options: Namespace) -> None:
    clips, dataset = out / "clips", out / "dataset"
    prepare: list[str | Path] = [
        "prepare",
        "--out",
        dataset,
        "--fractions",
        "[0.66,0.1,0.24]",
        "--seed",
        str(options.seed),
    ]
    for event in ("crash", "nearmiss"):
        prepare += [f"--{event}_csv", clips / f"AV_{event}_modified_r.csv", f"--{event}_dir", clips / event]
    _command(prepare)
    fit: list[str | Path] = ["fit", "--config", "demo.yaml", "--model.path", BASE_MODEL, "--data.folder", dataset]
    fit += ["--output_dir", out / "fit", "--seed_everything", str(options.seed)]
    if options.from_scratch:
        fit += ["--model.init", "random"]
    if options.max_epochs is not None:
        fit += ["--trainer.max_epochs", str(options.max_epochs)]
    _command(fit)
    for name, blind in (("predictions", "false"), ("blind", "true")):
        predict: list[str | Path] = [
            "predict",
            "--model.path",
            out / "fit" / "model",
            "--data.folder",
            dataset,
            "--data.split",
            "test",
        ]
        predict += ["--data.batch_size", "16", "--data.blank_frames", blind, "--model.max_new_tokens", "256"]
        predict += ["--model.embedder", "null", "--trainer.accelerator", "cpu", "--output_dir", out / name]
        _command(predict)
        evaluation = out / ("evaluation" if name == "predictions" else "blind_evaluation")
        evaluate: list[str | Path] = [
            "evaluate",
            "--predictions",
            out / name,
            "--truth",
            dataset,
            "--split",
            "test",
            "--out",
            evaluation,
        ]
        _command(evaluate if name == "predictions" else [*evaluate, "--embedder", "null"])
    _command(["report", out / "evaluation", "--out", out / "report.html"])


def _figures(out: Path) -> dict[str, Any]:
    from vlm_crash.data.prepare import load_prepared
    from vlm_crash.evaluation.baselines import linear_baseline
    from vlm_crash.schema.fields import load_schema

    schema = load_schema()
    splits = load_prepared(out / "dataset", schema)
    linear = linear_baseline(splits["train"], splits["test"], schema)
    (out / "linear_baseline.json").write_text(json.dumps(asdict(linear), indent=1) + "\n", encoding="utf-8")
    seen, blind = (
        json.loads((out / name / "metrics.json").read_text(encoding="utf-8"))
        for name in ("evaluation", "blind_evaluation")
    )
    mean, blind_mean = seen["overall"]["mean"], blind["overall"]["mean"]
    return {
        "balanced_accuracy": seen["event"]["balanced_accuracy"],
        "exact_match": mean["score"],
        "exact_match_low": mean["low"],
        "exact_match_high": mean["high"],
        "exact_match_given_event": mean["given_event"],
        "majority_baseline": mean["baseline"],
        "blind_balanced_accuracy": blind["event"]["balanced_accuracy"],
        "blind_exact_match": blind_mean["score"],
        "blind_exact_match_given_event": blind_mean["given_event"],
        "linear_balanced_accuracy": linear.event_balanced_accuracy,
        "linear_exact_match": linear.exact_match,
        "linear_exact_match_given_event": linear.exact_match_given_event,
        "num_train_clips": len(splits["train"]),
        "num_test_clips": len(splits["test"]),
    }


def _summary(figures: dict[str, Any], out: Path) -> str:
    def percent(name: str) -> str:
        return "-" if figures[name] is None else f"{100 * figures[name]:5.1f} %"

    columns = ("model", "black frames", "linear on pixels", "majority class")
    rows = {
        "crash or near miss": ("balanced_accuracy", "blind_balanced_accuracy", "linear_balanced_accuracy", None),
        "fields, exact match": ("exact_match", "blind_exact_match", "linear_exact_match", "majority_baseline"),
    }
    lines = [f"{figures['num_test_clips']} held-out clips".ljust(22) + "".join(name.rjust(18) for name in columns)]
    for row, names in rows.items():
        cells = ("50.0 %" if name is None else percent(name) for name in names)
        lines.append(row.ljust(22) + "".join(cell.rjust(18) for cell in cells))
    lines += [
        f"{figures['seconds']:.0f} s, {figures['peak_memory_gib']:.2f} GiB of memory at the peak",
        f"open {out / 'report.html'}",
    ]
    return "\n".join(["", *lines])
