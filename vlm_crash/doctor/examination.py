"""The doctor's round: everything that is looked at and tried, in order, and what of it a config needs."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from vlm_crash.doctor.children import tried
from vlm_crash.doctor.cuda_builds import driver_line, kernels_line
from vlm_crash.doctor.lines import OK, PROBLEM, UNTRIED, WARNING, Line
from vlm_crash.doctor.machine import (
    Driver,
    ask_driver,
    ffmpeg_line,
    free_space,
    gib,
    machine_line,
    memory,
    version_lines,
)
from vlm_crash.doctor.needs import Needs, head_sizes

SHM = Path("/dev/shm")
Facts = dict[str, Any]


def exit_code(lines: Iterable[Line]) -> int:
    """1 where something that is needed does not work, else 0."""
    return int(any(line.status == PROBLEM for line in lines))


def examine(needs: Needs) -> Iterator[Line]:
    """Every line, as soon as it is known. A fault of something that is not needed is a warning."""
    yield from version_lines()
    yield machine_line()
    yield ffmpeg_line()
    driver, line = ask_driver()
    yield line if _is_needed(line, needs) else _softened(line)
    yield from _decoders()
    facts: Facts = {"cards": []}
    yield from _torch(needs, driver, facts)
    if needs.source is not None:
        yield from _config(needs, facts)


def _softened(line: Line) -> Line:
    return replace(line, status=WARNING) if line.status == PROBLEM else line


def _lines(items: Iterable[Mapping[str, Any]], facts: Facts) -> Iterator[Line]:
    """Findings of a child as lines; what it says besides goes into `facts`."""
    for item in items:
        if item.get("fact") == "card":
            facts["cards"].append(item)
        elif "fact" in item:
            facts[item["fact"]] = item
        else:
            yield Line(**item)


def _decoders() -> Iterator[Line]:
    lines = list(_lines(tried("decoders"), {}))
    works = any(line.status == OK and line.name in ("PyAV", "decord") for line in lines)
    # PyAV reads what decord cannot; the reverse does not hold.
    yield from (_softened(line) if line.name.startswith("decord") and works else line for line in lines)


# ------------------------------------------------------------------------- torch


def _torch(needs: Needs, driver: Driver | None, facts: Facts) -> Iterator[Line]:
    lines = _lines(tried("torch", *map(str, head_sizes(needs))), facts)
    first = next(lines, None)
    # Lazily: the kernels of each card are known when all lines of the child are.
    rest = chain(
        [first] if first else [], _driver(driver, facts), lines, _kernels(driver, facts), _unseen(driver, facts)
    )
    for line in rest:
        yield line if _is_needed(line, needs) else _softened(line)


def _driver(driver: Driver | None, facts: Facts) -> Iterator[Line]:
    """The driver against the build of torch."""
    if driver is not None and "torch" in facts:
        torch = facts["torch"]
        cards = [capability for _, capability, _ in driver.cards]
        yield driver_line(driver.version, torch["version"], _version("torchvision"), torch["cuda"], cards)


def _kernels(driver: Driver | None, facts: Facts) -> Iterator[Line]:
    """The code that this torch has, against each card."""
    if "torch" not in facts or not facts["torch"]["cuda"]:
        return
    seen = {tuple(card["capability"]) for card in facts["cards"]}
    cards = sorted(seen | {capability for _, capability, _ in (driver.cards if driver else ())})
    version, vision = (driver.version if driver else "0"), _version("torchvision")
    for card in cards:
        yield kernels_line(card, facts["torch"]["architectures"], version, facts["torch"]["version"], vision)


def _unseen(driver: Driver | None, facts: Facts) -> Iterator[Line]:
    """Cards that the driver has and torch does not reach."""
    if driver is not None and not facts["cards"] and "torch" in facts:
        why = facts.get("no_cuda", {}).get("why", "torch.cuda finds no device")
        cards = len(driver.cards) or "some"
        yield Line("GPUs in torch", PROBLEM, f"the driver has {cards}, torch none: {why}", "see the driver's line")


def _version(package: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "0"


def _is_needed(line: Line, needs: Needs) -> bool:
    """Whether a fault of this is a problem for the config (or, without one, for any run)."""
    where, _, what = line.name.partition(", ")
    if where in ("driver", "NVIDIA cards", "GPUs in torch", "kernels for the cards"):
        return needs.accelerator != "cpu"
    if where.startswith("GPU"):
        if needs.accelerator == "cpu":
            return False
        return what in ("", needs.dtype, f"{needs.attention} attention", "float32", "math attention")
    if where == "CPU":
        on_cpu = needs.accelerator == "cpu" and needs.source is not None
        return what in ("float32", "math attention") or (
            on_cpu and what in (needs.dtype, f"{needs.attention} attention")
        )
    if where in ("gloo", "nccl", "processes"):
        return needs.is_distributed and (where != "nccl" or needs.accelerator != "cpu")
    return True


# ------------------------------------------------------------------------ config


def _config(needs: Needs, facts: Facts) -> Iterator[Line]:
    """What the config asks for, against what is here."""
    num_cards = len(facts["cards"])
    yield from _devices(needs, facts)
    uses_gpus = needs.accelerator != "cpu" and num_cards > 0
    processes = needs.devices or (num_cards if uses_gpus else 1)
    if needs.model is None:
        yield Line(
            "checkpoints and memory", UNTRIED, f"{needs.source} names no model",
            "give --model.path, the folder that fit will get",
        )  # fmt: skip
    else:
        yield from _lines(tried("model", needs.model, json.dumps(needs.lora)), facts)
    model = facts.get("model")
    if model is not None:
        yield _disk(needs, model["parameters"])
        yield _memory(needs, model["parameters"], processes, uses_gpus)
    else:
        yield _disk(needs, None)
    yield _shared_memory(needs, model["side"] if model else None, processes)


def _devices(needs: Needs, facts: Facts) -> Iterator[Line]:
    cards = facts["cards"]
    name = f"devices of {needs.source}"
    if needs.accelerator == "cpu":
        yield Line(name, OK, f"{needs.devices or 1} processes on the CPU")
        return
    if not cards:
        status = PROBLEM if needs.accelerator == "gpu" else WARNING
        remedy = "give --trainer.accelerator cpu to try it on the CPU, which takes very much longer"
        yield Line(name, status, f"accelerator {needs.accelerator}, and torch sees no GPU", remedy)
        return
    if needs.devices is not None and needs.devices > len(cards):
        text = f"{needs.devices} are asked for, and torch sees {len(cards)}"
        yield Line(name, PROBLEM, text, f"set --trainer.devices {len(cards)}")
        return
    yield Line(name, OK, f"{needs.devices or len(cards)} of {len(cards)} GPUs; whether the model fits them: plan")


def _disk(needs: Needs, parameters: Mapping[str, int] | None) -> Line:
    name = f"disk of {needs.output_dir}"
    try:
        place, free = free_space(needs.output_dir)
    except OSError as error:
        return Line(name, PROBLEM, f"cannot be asked ({error})", "set --output_dir elsewhere")
    if parameters is None:
        return Line(name, OK, f"{gib(free)} free at {place}; what the checkpoints take is not known without the model")
    wanted = needs.checkpoint_bytes(parameters)
    text = f"{gib(free)} free at {place}; checkpoints and the model folder take up to {gib(wanted)}"
    if free < wanted:
        return Line(name, PROBLEM, text, "free some space, set --output_dir elsewhere, or keep fewer (save_top_k)")
    return Line(name, OK, text)


def _memory(needs: Needs, parameters: Mapping[str, int], processes: int, on_gpu: bool) -> Line:
    name, found = "memory of the machine", memory()
    wanted = needs.host_bytes(parameters, processes, on_gpu)
    if found is None:
        return Line(name, UNTRIED, f"psutil cannot be imported; {gib(wanted)} are wanted", "pip install psutil")
    total, free = found
    text = f"{gib(total)}, {gib(free)} free; weights and what trains them take up to {gib(wanted)}, clips come on top"
    if wanted > total:
        return Line(name, PROBLEM, text, "fewer processes on this machine (--trainer.devices), or more memory")
    return Line(name, OK if wanted <= free else WARNING, text, "" if wanted <= free else "end other programs first")


def _shared_memory(needs: Needs, side: int | None, processes: int) -> Line:
    name = "shared memory (/dev/shm)"
    if not needs.num_workers:
        return Line(name, OK, "not used: data.num_workers is 0")
    try:
        _, free = free_space(SHM)
    except OSError as error:
        return Line(name, PROBLEM, f"cannot be asked ({error})", "set --data.num_workers 0")
    if side is None or needs.num_frames is None:
        lacking = "the model" if side is None else "data.num_frames"
        return Line(name, OK, f"{gib(free)} free; what the workers take is not known without {lacking}")
    wanted = needs.batch_bytes(side, processes)
    text = f"{gib(free)} free; the batches of {processes} x {needs.num_workers} workers take up to {gib(wanted)}"
    remedy = "lower --data.num_workers; in Docker, give --shm-size or --ipc=host"
    return Line(name, OK, text) if wanted <= free else Line(name, PROBLEM, text, remedy)
