"""Several machines: the network between them, and a folder that all of them see.

Enters: the address at which the processes meet, the run's folder. Leaves: GLOO_SOCKET_IFNAME where it is needed, or a
ValueError. Invariant: what the user has set stays.
"""

import logging
import os
import socket
import uuid
from collections.abc import Collection
from pathlib import Path

import psutil

from vlm_crash.parallel.gathering import CPUGroup

log = logging.getLogger(__name__)

INTERFACE = "GLOO_SOCKET_IFNAME"


def is_loopback(name: str) -> bool:
    """Whether a machine's name leads to the machine itself alone, or nowhere.

    >>> is_loopback("127.0.1.1"), is_loopback("10.1.2.3")
    (True, False)
    """
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(name, None)}
    except OSError:
        return True
    return all(address == "::1" or address.startswith("127.") for address in found)


def set_interface(main_address: str) -> None:
    """Name the network between the machines for gloo, where the machine's own name would lead gloo astray.

    Each process tells the others at which address it can be reached. gloo takes that of the machine's own name, and
    many Linux systems have it in /etc/hosts as 127.0.1.1 (torch, ProcessGroupGloo.cpp, createDefaultDevice): the others
    then look for it on their own machine.

    Args:
        main_address: where the processes meet.

    Raises:
        ValueError: there is no way to tell which network it is.
    """
    if os.environ.get(INTERFACE) or not is_loopback(socket.gethostname()):
        return
    chosen = interface_to(main_address)
    os.environ[INTERFACE] = chosen
    log.info("%s leads to this machine alone, so %s=%s", socket.gethostname(), INTERFACE, chosen)


def interface_to(address: str) -> str:
    """The network interface through which this machine reaches an address.

    Raises:
        ValueError: it cannot be told.
    """
    addresses = {
        name: {entry.address.split("%")[0] for entry in entries} for name, entries in psutil.net_if_addrs().items()
    }
    up = {name for name, state in psutil.net_if_stats().items() if state.isup}
    outward = {
        name: found
        for name, found in addresses.items()
        if name in up and not any(entry == "::1" or entry.startswith("127.") for entry in found)
    }
    own = _source_address(address)
    for name, found in outward.items():
        if own in found:
            return name
    if len(outward) == 1:
        return next(iter(outward))
    raise ValueError(_unclear(address, outward))


def _source_address(address: str) -> str | None:
    """The address under which this machine would write to another one; nothing is sent."""
    try:
        family, kind, _, _, target = socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(target)
            return str(probe.getsockname()[0])
    except OSError:
        return None


def _unclear(address: str, names: Collection[str]) -> str:
    return (
        f"it cannot be told through which network this machine reaches {address} (it has: "
        f"{', '.join(names) or 'none but itself'}); set the environment variable {INTERFACE} to the one between the "
        "machines, on each of them"
    )


def check_shared_folder(folder: Path, group: CPUGroup) -> None:
    """Every process must see the folder in which a checkpoint is written by all of them.

    Raises:
        ValueError: some do not.
    """
    marks = group.gather_object(uuid.uuid4().hex if group.rank == 0 else "")
    mark = folder / f".seen-by-all-{marks[0]}"
    if group.rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        mark.touch()
    group.barrier()
    # Network file systems remember that a name was not there; the folder, read anew, tells.
    sees = folder.is_dir() and mark in set(folder.iterdir())
    blind = [name for name in group.gather_object("" if sees else socket.gethostname()) if name]
    if group.rank == 0:
        mark.unlink(missing_ok=True)
    if blind:
        raise ValueError(
            f"output_dir={folder} is not one folder for all machines (not seen by {len(blind)} processes, on "
            f"{', '.join(sorted(set(blind)))}): each process writes its part of a checkpoint; set --output_dir to a "
            "folder on a disk that all share"
        )
