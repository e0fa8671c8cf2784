"""Which builds of torch run with which driver and card.

Enters: versions as texts. Leaves: lines. The facts are those of NVIDIA's page "CUDA Compatibility, Minor Version
Compatibility" (any driver of a CUDA release's major version will do) and of "PyTorch CUDA Support Matrix" in RELEASE.md
of pytorch/pytorch, both as of torch 2.14.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from vlm_crash.doctor.lines import OK, PROBLEM, WARNING, Line

#: major version of CUDA -> oldest driver.
OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}
Capability = tuple[int, int]


@dataclass(frozen=True)
class Build:
    """Wheels of torch for Linux on x86-64 with one version of CUDA; torch versions as (major, minor)."""

    tag: str
    cuda: int
    first: tuple[int, int]
    last: tuple[int, int] | None
    oldest_card: Capability
    newest_card: Capability


BUILDS = (
    Build("cu132", 13, (2, 12), None, (7, 5), (12, 99)),
    Build("cu130", 13, (2, 9), None, (7, 5), (12, 99)),
    Build("cu128", 12, (2, 9), (2, 11), (7, 5), (12, 99)),
    Build("cu126", 12, (2, 9), (2, 14), (5, 0), (9, 99)),
)


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version.

    >>> numbers("580.65.06"), numbers("2.14.1+cu126"), numbers("13.2"), numbers("none")
    ((580, 65, 6), (2, 14, 1), (13, 2), ())
    """
    found = re.match(r"\d+(?:\.\d+)*", version.strip())
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def named(capability: Capability) -> str:
    """As NVIDIA writes it.

    >>> named((7, 5))
    '7.5'
    """
    return f"{capability[0]}.{capability[1]}"


def fitting_build(driver: str, torch_version: str, torchvision_version: str, cards: Iterable[Capability]) -> str | None:
    """The pip command for a build that this driver and these cards take, nearest to the installed torch; None: none."""
    torch = numbers(torch_version)[:2]
    driver_major = (numbers(driver) or (0,))[0]
    candidates = [
        build
        for build in BUILDS
        if driver_major >= OLDEST_DRIVER[build.cuda]
        and all(build.oldest_card <= card <= build.newest_card for card in cards)
    ]
    for build in candidates:
        if build.first <= torch <= (build.last or torch):
            # With the tag, or pip would find the installed ones to be of that version.
            versions = " ".join(
                f"{name}=={version.split('+')[0]}+{build.tag}"
                for name, version in (("torch", torch_version), ("torchvision", torchvision_version))
            )
            return f"pip install {versions} -i https://download.pytorch.org/whl/{build.tag}"
    newest = max(candidates, key=lambda build: build.last or (99, 0), default=None)
    if newest is None or newest.last is None:
        return None
    major, minor = newest.last
    # torchvision 0.N belongs to torch 2.(N - 15).
    versions = f"'torch=={major}.{minor}.*' 'torchvision==0.{minor + 15}.*'"
    return f"pip install {versions} -i https://download.pytorch.org/whl/{newest.tag}"


def driver_line(
    driver: str, torch_version: str, torchvision_version: str, build_cuda: str | None, cards: Iterable[Capability]
) -> Line:
    """Whether the driver is new enough for the CUDA that torch was built with."""
    name, cards = "driver", list(cards)
    other = fitting_build(driver, torch_version, torchvision_version, cards)
    if build_cuda is None:
        return Line(
            name,
            PROBLEM,
            f"{driver}; torch {torch_version} was built without CUDA, so it uses no GPU",
            other or "update the driver to 580 or newer, then install torch from PyPI",
        )
    major = numbers(build_cuda)[0]
    oldest = OLDEST_DRIVER.get(major)
    if oldest is None or not numbers(driver):
        return Line(
            name, WARNING, f"{driver}; torch is built with CUDA {build_cuda}; whether they fit is not known here"
        )
    if numbers(driver)[0] >= oldest:
        return Line(name, OK, f"{driver}; CUDA {build_cuda}, with which torch is built, wants {oldest} or newer")
    update = f"update the driver to {oldest} or newer"
    return Line(
        name,
        PROBLEM,
        f"{driver}; CUDA {build_cuda}, with which torch {torch_version} is built, wants {oldest} or newer",
        f"{update}, or, to keep the driver: {other}" if other else update,
    )


def has_kernels(card: Capability, architectures: Iterable[str]) -> bool:
    """Whether a build has code for a card: of its major version and no newer minor one, or PTX of the same or older.

    >>> has_kernels((7, 5), ["sm_75", "sm_80"]), has_kernels((8, 9), ["sm_75", "sm_86"])
    (True, True)
    >>> has_kernels((6, 1), ["sm_75", "sm_80"]), has_kernels((12, 1), ["sm_90", "compute_90"])
    (False, True)
    """
    for name in architectures:
        kind, _, digits = name.partition("_")
        plain = re.sub(r"\D+$", "", digits)
        if not plain:
            continue
        built = (int(plain[:-1] or 0), int(plain[-1]))
        if kind == "sm" and built[0] == card[0] and built[1] <= card[1]:
            return True
        if kind == "compute" and built <= card:
            return True
    return False


def kernels_line(
    card: Capability, architectures: list[str], driver: str, torch_version: str, torchvision_version: str
) -> Line:
    """Whether the installed torch has kernels for a card."""
    name = f"kernels for the cards, {named(card)}"
    built = " ".join(architectures)
    if has_kernels(card, architectures):
        return Line(name, OK, f"torch {torch_version} has code for compute capability {named(card)} ({built})")
    other = fitting_build(driver, torch_version, torchvision_version, [card])
    return Line(
        name,
        PROBLEM,
        f"torch {torch_version} has no code for compute capability {named(card)} ({built})",
        other or "no current build of torch has; use another card, or build torch from source",
    )
