"""The doctor's round: everything that is looked at and tried, in order, and what of it a config needs."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
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
from vlm_crash.doctor.needs import Needs

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
    yield line if needs.accelerator != "cpu" else _softened(line)
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
    on_gpu = needs.accelerator != "cpu"
    said_driver = False
    for line in _lines(tried("torch"), facts):
        if "torch" in facts and not said_driver:
            said_driver = True
            yield line
            yield from (found if on_gpu else _softened(found) for found in _builds(driver, facts["torch"]))
            continue
        yield line if _is_needed(line, needs) else _softened(line)
    if driver is not None and not facts["cards"] and "torch" in facts:
        why = facts.get("no_cuda", {}).get("why", "torch.cuda finds no device")
        line = Line(
            "GPUs in torch", PROBLEM, f"nvidia-smi sees {len(driver.cards)}, torch none: {why}", "see the driver's line"
        )
        yield line if on_gpu else _softened(line)


def _builds(driver: Driver | None, torch: Mapping[str, Any]) -> Iterator[Line]:
    """The driver against the build of torch, and its kernels against each card."""
    if driver is None:
        return
    vision = _version("torchvision")
    cards = [capability for _, capability, _ in driver.cards]
    yield driver_line(driver.version, torch["version"], vision, torch["cuda"], cards)
    for number, card in enumerate(cards) if torch["cuda"] else ():
        yield kernels_line(number, card, torch["architectures"], driver.version, torch["version"], vision)


def _version(package: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "0"


def _is_needed(line: Line, needs: Needs) -> bool:
    """Whether a fault of this is a problem for the config (or, without one, for any run)."""
    where, _, what = line.name.partition(", ")
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
        yield from _lines(tried("model", needs.model), facts)
    model = facts.get("model")
    if model is not None:
        yield _disk(needs, model["parameters"])
        yield _memory(needs, model["parameters"], processes)
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


def _memory(needs: Needs, parameters: Mapping[str, int], processes: int) -> Line:
    name, found = "memory of the machine", memory()
    # Each process reads the whole model in fp32 before it is shared out; offloaded: 16 bytes a parameter, shared.
    count = sum(parameters.values())
    wanted = 4 * count * processes + (16 * count // needs.num_nodes if needs.offloads else 0)
    if found is None:
        return Line(name, UNTRIED, f"psutil cannot be imported; {gib(wanted)} are wanted", "pip install psutil")
    total, free = found
    text = f"{gib(total)}, {gib(free)} free; loading takes up to {gib(wanted)} ({processes} x the model in fp32)"
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
