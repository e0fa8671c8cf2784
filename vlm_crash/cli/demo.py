"""`demo`: every command of the package, one after the other, on clips rendered here.

Leaves in the output folder: clips/, dataset/, fit/, predictions/, blind/, val/, evaluation/, report.html and demo.json,
whose figures can be computed again from the files beside it.
"""

import importlib
import json
import logging
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import psutil
from jsonargparse import Namespace

log = logging.getLogger(__name__)

BASE_MODEL = Path(str(files("vlm_crash") / "demo" / "base"))
#: What random weights need instead of the gentle rates that a trained base is fine-tuned with.
FROM_SCRATCH = {
    "model.init": "random", "model.lr_vision": 2e-4, "model.lr_projector": 4e-4, "model.lr_language": 4e-4,
    "trainer.max_epochs": 4,
}  # fmt: skip
#: Written last: a folder that has it holds a whole demo.
FIGURES = "demo.json"


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


def _command(name: str, options: Mapping[str, Any], *folders: Path) -> None:
    """Run a command of ours in this process, as a user would type it."""
    from vlm_crash.cli import COMMANDS

    words = [*map(str, folders)]
    words += [word for key, value in options.items() for word in (f"--{key}", str(value))]
    print(f"\n$ python -m vlm_crash {name} {' '.join(words)}", flush=True)
    start = time.perf_counter()
    code = importlib.import_module(f"vlm_crash.cli.{COMMANDS[name][0]}").run(name, words)
    assert code == 0, f"{name} ended with {code}"
    print(f"  {name}: {time.perf_counter() - start:.0f} s", flush=True)


def demo(options: Namespace) -> int:
    """Render, prepare, predict with the base, fit, predict (blind, and with the clips), evaluate, report."""
    start = time.perf_counter()
    out = Path(options.out)
    _check(options)
    make_room(out)
    with PeakMemory() as memory:
        render_seconds = _render(out / "clips", options)
        _steps(out, options)
        figures = _figures(out)
    figures["render_seconds"] = round(render_seconds, 1)
    figures["seconds"] = round(time.perf_counter() - start, 1)
    figures["peak_memory_gib"] = round(memory.gib, 2)
    (out / FIGURES).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(_summary(figures, out))
    return 0


def make_room(out: Path) -> None:
    """An empty folder to work in; a finished demo that lies there is kept beside it until the next one is finished."""
    if out.exists() and any(out.iterdir()):
        if not (out / ".demo").exists():
            raise ValueError(f"{out} is not empty and was not made by demo; set --out to another folder")
        if (out / FIGURES).exists():
            earlier = out.with_name(f"{out.name}.earlier")
            if earlier.exists() and not (earlier / ".demo").exists():
                raise ValueError(f"{earlier} is in the way of the earlier demo; move it, or set --out elsewhere")
            shutil.rmtree(earlier, ignore_errors=True)
            out.rename(earlier)
            print(f"the earlier demo is kept in {earlier}", flush=True)
        else:
            shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / ".demo").touch()


def _check(options: Namespace) -> None:
    """Refuse what cannot be a demo, before the earlier one makes room."""
    from vlm_crash.data.splits import MIN_CLIPS_FOR_ALL
    from vlm_crash.demo.clips import plan_dataset

    plan_dataset(options.num_clips, options.seed)
    if options.num_clips < MIN_CLIPS_FOR_ALL:
        raise ValueError(
            f"num_clips={options.num_clips} is too few for clips to train on, to validate and to test; "
            f"set --num_clips to {MIN_CLIPS_FOR_ALL} or more"
        )


def _render(clips: Path, options: Namespace) -> float:
    """Write the clips and their CSVs; the seconds that it took."""
    from vlm_crash.demo.clips import write_dataset

    start = time.perf_counter()
    write_dataset(clips, options.num_clips, options.seed)
    seconds = time.perf_counter() - start
    print(f"{options.num_clips} clips rendered: {seconds:.0f} s", flush=True)
    return seconds


def _steps(out: Path, options: Namespace) -> None:
    clips, dataset, model = out / "clips", out / "dataset", out / "fit" / "model"
    prepare = {"out": dataset, "fractions": "[0.66,0.1,0.24]", "seed": options.seed}
    for event in ("crash", "nearmiss"):
        prepare |= {f"{event}_csv": clips / f"AV_{event}_modified_r.csv", f"{event}_dir": clips / event}
    _command("prepare", prepare)
    _answer(out, "base", {"model.path": BASE_MODEL})
    fit = {"config": "demo.yaml", "model.path": BASE_MODEL, "data.folder": dataset, "output_dir": out / "fit"}
    # Of dropout, and of the order of the clips.
    fit |= {"seed_everything": options.seed, "data.seed": options.seed}
    if options.from_scratch:
        fit |= FROM_SCRATCH
    if options.max_epochs is not None:
        fit["trainer.max_epochs"] = options.max_epochs
    _command("fit", fit)
    _answer(out, "blind", {"model.path": model, "data.blank_frames": "true"})
    _predict(out, "val", "val", {"model.path": model})
    scoring = {"embedder": "minilm", "blind": out / "blind", "calibrate_on": out / "val"}
    _answer(out, "", {"model.path": model}, scoring)
    _command("report", {"out": out / "report.html"}, out / "evaluation")


def _answer(out: Path, name: str, options: Mapping[str, Any], scoring: Mapping[str, Any] | None = None) -> None:
    """Answer the held-out clips and score the answers; without more options for that, not their texts."""
    predictions, evaluation = name or "predictions", out / "_".join(filter(None, (name, "evaluation")))
    _predict(out, predictions, "test", options)
    evaluate = {"predictions": out / predictions, "truth": out / "dataset", "split": "test", "out": evaluation}
    _command("evaluate", evaluate | {"embedder": "null"} | dict(scoring or {}))


def _predict(out: Path, name: str, split: str, options: Mapping[str, Any]) -> None:
    predict = {"data.folder": out / "dataset", "data.split": split, "data.batch_size": 16}
    _command("predict", {**options, **predict, "trainer.accelerator": "cpu", "output_dir": out / name})


def _figures(out: Path) -> dict[str, Any]:
    from vlm_crash.data.prepare import load_prepared
    from vlm_crash.evaluation.baselines import linear_baseline
    from vlm_crash.schema.fields import load_schema

    schema = load_schema()
    splits = load_prepared(out / "dataset", schema)
    linear = linear_baseline(splits["train"], splits["test"], schema)
    (out / "linear_baseline.json").write_text(json.dumps(asdict(linear), indent=1) + "\n", encoding="utf-8")
    seen, blind, base = (
        json.loads((out / name / "metrics.json").read_text(encoding="utf-8"))
        for name in ("evaluation", "blind_evaluation", "base_evaluation")
    )
    mean, blind_mean = seen["overall"]["mean"], blind["overall"]["mean"]
    return {
        "balanced_accuracy": seen["event"]["balanced_accuracy"],
        "exact_match": mean["score"],
        "exact_match_low": mean["low"],
        "exact_match_high": mean["high"],
        "exact_match_given_event": mean["given_event"],
        "base_balanced_accuracy": base["event"]["balanced_accuracy"],
        "base_exact_match": base["overall"]["mean"]["score"],
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

    columns = {
        "fine-tuned": ("balanced_accuracy", "exact_match"),
        "base alone": ("base_balanced_accuracy", "base_exact_match"),
        "black frames": ("blind_balanced_accuracy", "blind_exact_match"),
        "linear on pixels": ("linear_balanced_accuracy", "linear_exact_match"),
        "majority class": (None, "majority_baseline"),
    }
    rows = dict(zip(("crash or near miss", "fields, exact match"), zip(*columns.values(), strict=True), strict=True))
    lines = [f"{figures['num_test_clips']} held-out clips".ljust(22) + "".join(name.rjust(17) for name in columns)]
    for row, names in rows.items():
        cells = ("50.0 %" if name is None else percent(name) for name in names)
        lines.append(row.ljust(22) + "".join(cell.rjust(17) for cell in cells))
    lines += [
        f"{figures['seconds']:.0f} s, {figures['peak_memory_gib']:.2f} GiB of memory at the peak",
        f"open {out / 'report.html'}",
    ]
    return "\n".join(["", *lines])
