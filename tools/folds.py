"""K grouped folds and several seeds of one training, and one table of their scores.

    .venv/bin/python tools/folds.py runs/demo/dataset --out runs/folds --folds 5 --seeds 0 1 \\
        --fit "--config demo.yaml --model.path vlm_crash/demo/base" \\
        --predict "--data.batch_size 16 --trainer.accelerator cpu"

Enters: a prepared dataset, options of fit, predict and evaluate. Leaves: OUT/fold-0/dataset (clips are shared, not
copied), OUT/fold-0/seed-0/{fit,predictions,evaluation} with a log beside each, OUT/folds_scores.json and .csv. What is
finished is not done again; a run that fails is named and does not stop the others. Exit code: 0 all runs are in the
table, 1 some failed, 2 wrong options.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlm_crash.data.files import write_files
from vlm_crash.data.folds import fold_splits, groups_of, make_folds, write_fold
from vlm_crash.data.prepared import load_samples
from vlm_crash.evaluation.folds import Run, gather
from vlm_crash.evaluation.folds_table import folds_csv, folds_table
from vlm_crash.schema.fields import load_schema
from vlm_crash.schema.records import VideoSample

STEPS = ("fit", "predict", "evaluate")
SETTINGS, SCORES, DONE = "folds.json", "folds_scores.json", "done.json"
#: What the tool gives itself.
OWN = {
    "fit": (
        "--data.folder",
        "--output_dir",
        "--seed_everything",
        "--data.seed",
        "--ckpt_path",
        "--overwrite",
        "--data.schema",
    ),
    "predict": ("--data.folder", "--data.split", "--model.path", "--output_dir", "--overwrite", "--data.schema"),
    "evaluate": ("--predictions", "--truth", "--split", "--out", "--schema"),
}


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("dataset", type=Path, help="folder that prepare wrote")
    add("--out", type=Path, required=True, help="folder for everything")
    add("--folds", type=int, default=5)
    add("--seeds", type=int, nargs="+", default=[0], help="of the training; more can be added later")
    add("--split_seed", type=int, default=0, help="of the folds")
    add("--val_fraction", type=float, default=0.1, help="share of the clips that are not tested on, to validate")
    add("--schema", type=Path, help="YAML with events and fields; unset: the crash and near-miss form")
    for step in STEPS:
        add(f"--{step}", type=shlex.split, default=[], help=f"options of {step}, in quotes")
    return parser.parse_args(words)


def main(words: Sequence[str]) -> int:
    options = parse(words)
    try:
        fold_of, groups = _plan(options)
    except (ValueError, OSError) as error:
        print(f"folds: error: {error}", file=sys.stderr)
        return 2
    runs, failed = [], []
    for fold in range(options.folds):
        for seed in options.seeds:
            folder = options.out / f"fold-{fold}" / f"seed-{seed}"
            problem = run(folder, options, seed)
            try:
                runs += [Run.read(fold, seed, folder / "evaluation")] if problem is None else []
            except (ValueError, OSError) as error:
                problem = f'{error}; take "evaluate" out of {folder / DONE}, and the same command evaluates it again'
            if problem is not None:
                failed.append(f"fold {fold}, seed {seed}: {problem}")
                print(f"FAILED {failed[-1]}", flush=True)
    try:
        _table(options.out, failed, gather(runs, fold_of, groups))
    except ValueError as error:
        failed.append(str(error))
    for line in failed:
        print(f"FAILED {line}", file=sys.stderr)
    return 1 if failed else 0


def _table(out: Path, failed: Sequence[str], found: dict[str, Any]) -> None:
    found["failed"] = list(failed)
    texts = {SCORES: json.dumps(found, indent=1, allow_nan=False), "folds_scores.csv": folds_csv(found)}
    write_files({out / name: text for name, text in texts.items()})
    clips = found["clips"]
    print(f"\n{folds_table(found)}\n{len(found['runs'])} runs, {clips['scored']} of {clips['n']} clips: {out / SCORES}")


def _plan(options: argparse.Namespace) -> tuple[dict[str, int], dict[str, str]]:
    """Every clip's fold and the groups; the datasets of the folds are written.

    Raises:
        ValueError: options that cannot be, or are not those of the runs that lie in the folder.
    """
    for step in STEPS:
        if own := [word for word in getattr(options, step) if word.split("=")[0] in OWN[step]]:
            raise ValueError(f"--{step} has {', '.join(own)}, which this tool gives itself; leave it out")
    if len(set(options.seeds)) < len(options.seeds) or min(options.seeds) < 0:
        raise ValueError(f"seeds={options.seeds} must be different numbers, 0 or more")
    samples = load_samples(options.dataset, load_schema(options.schema))
    groups = groups_of(options.dataset, samples)
    fold_of = make_folds(samples, groups, options.folds, options.split_seed)
    settings = {
        "dataset": str(options.dataset.resolve()), "folds": options.folds, "split_seed": options.split_seed,
        "val_fraction": options.val_fraction, "schema": options.schema and str(options.schema.resolve()),
        **{step: getattr(options, step) for step in STEPS}, "fold_of": fold_of,
    }  # fmt: skip
    _keep_settings(options.out / SETTINGS, settings)
    for fold in range(options.folds):
        _write_fold(options, fold, samples, groups, fold_of)
    return fold_of, groups


def _keep_settings(path: Path, settings: dict[str, Any]) -> None:
    """Runs of one table must have been made in one way."""
    if path.is_file():
        old = _object(path, "delete it where its runs are of these settings, or give another --out")
        if other := [name for name in settings if old.get(name) != settings[name]]:
            raise ValueError(
                f"{path.parent} holds runs of other settings ({', '.join(other)} differ; {path} has the old ones); "
                "give those, or another --out"
            )
    write_files({path: json.dumps(settings, indent=1) + "\n"})


def _object(path: Path, remedy: str) -> dict[str, Any]:
    """What a file of this tool holds; ValueError where it is something else."""
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}); {remedy}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no object ({str(found)[:40]}); {remedy}")
    return found


def _write_fold(
    options: argparse.Namespace,
    fold: int,
    samples: Sequence[VideoSample],
    groups: dict[str, str],
    fold_of: dict[str, int],
) -> None:
    splits = fold_splits(samples, groups, fold_of, fold, options.val_fraction, options.split_seed)
    about = {"fold": fold, "folds": options.folds, "split_seed": options.split_seed, "groups": groups}
    write_fold(options.dataset, options.out / f"fold-{fold}" / "dataset", splits, about)


def run(folder: Path, options: argparse.Namespace, seed: int) -> str | None:
    """Fit, predict and evaluate one fold with one seed, as far as that is not done; what went wrong, in words."""
    fit, answers, scores = folder / "fit", folder / "predictions", folder / "evaluation"
    dataset = folder.parent / "dataset"
    data_schema = ["--data.schema", options.schema] if options.schema else []
    words = {
        # Of new weights and dropout, and of the order of the clips. auto: a training that was cut off goes on.
        "fit": ["--data.folder", dataset, "--output_dir", fit, "--seed_everything", seed, "--data.seed", seed,
                "--ckpt_path", "auto",
                *data_schema],
        "predict": ["--model.path", fit / "model", "--data.folder", dataset, "--data.split", "test", "--output_dir",
                    answers, *data_schema],
        "evaluate": ["--predictions", answers, "--truth", dataset, "--split", "test", "--out", scores,
                     *(["--schema", options.schema] if options.schema else [])],
    }  # fmt: skip
    done_file = folder / DONE
    try:
        done = _object(done_file, f"delete {folder} and run again") if done_file.is_file() else {}
    except ValueError as error:
        return str(error)
    for step in STEPS:
        if step in done:
            continue
        start = time.perf_counter()
        code = _command(step, [*getattr(options, step), *words[step]], folder / f"{step}.log")
        if code:
            return f"{step} ended with {code}: {_last_line(folder / f'{step}.log')} ({folder / f'{step}.log'})"
        done[step] = round(time.perf_counter() - start, 1)
        write_files({done_file: json.dumps(done)})
        print(f"{folder}: {step} {done[step]:.0f} s", flush=True)
    return None


def _command(step: str, words: Sequence[object], log: Path) -> int:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        command = [sys.executable, "-m", "vlm_crash", step, *map(str, words)]
        file.write(f"$ {shlex.join(command)}\n".encode())
        file.flush()
        return subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it was", file=sys.stderr)
        sys.exit(130)
