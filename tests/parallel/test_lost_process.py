"""Errors of the network become one message; others do not. Interfaces and folders of several machines."""

import os
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace

import psutil
import pytest
import torch
import torch.distributed as dist

from tests.parallel.conftest import free_port
from vlm_crash.cli.errors import _resume
from vlm_crash.parallel.gathering import CPUGroup
from vlm_crash.parallel.hosts import INTERFACE, check_shared_folder, interface_to, is_loopback, set_interface
from vlm_crash.parallel.lost_process import lost_process

PATIENCE = timedelta(minutes=5)  # for what comes, on a slow machine too
WATCHDOG = (
    "[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=9, OpType=_ALLGATHER_BASE) "
    "ran for 600012 milliseconds before timing out."
)


def in_processes(folder, check: Callable[[int], None]) -> None:
    """Run a check in two forked processes, connected through a file; each must end well."""
    children = []
    for rank in range(2):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.environ["GLOO_SOCKET_IFNAME"] = "lo"
                torch.set_num_threads(1)
                store = dist.FileStore(str(folder / "store"), 2)
                dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=PATIENCE)
                check(rank)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]


def message_of(action: Callable[[], object]) -> str:
    try:
        action()
    except RuntimeError as error:
        return lost_process(error) or f"not understood: {error}"
    raise AssertionError("nothing was raised")


def test_a_silent_one_and_one_that_is_gone(tmp_path):
    has_given_up = tmp_path / "has given up"

    def check(rank: int) -> None:
        group = CPUGroup(timedelta(seconds=4))
        if rank == 1:
            while not has_given_up.exists() and os.getppid() != 1:
                time.sleep(0.02)
            os._exit(0)
        said = message_of(group.barrier)
        assert said.startswith("another process is lost: waited 4 s for the others to come to the same place"), said
        has_given_up.touch()
        said = message_of(lambda: dist.all_reduce(torch.ones(1)))
        assert "it closed the connection; this one waited for the others' numbers" in said, said

    in_processes(tmp_path, check)


def test_nobody_waits_at_the_address(monkeypatch):
    port = free_port()
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(port))
    patience = timedelta(seconds=1)
    said = message_of(lambda: dist.init_process_group("gloo", rank=1, world_size=2, timeout=patience))
    assert f"the processes did not come together at 127.0.0.1:{port}" in said


def test_what_nccl_says():
    said = lost_process(dist.DistBackendError(WATCHDOG))
    assert said is not None and "waited 600.012 s for the others' numbers" in said


def test_other_errors_are_others():
    assert lost_process(RuntimeError("shape '[2]' is invalid for input of size 3")) is None
    assert lost_process(RuntimeError("DataLoader timed out after 120 seconds")) is None
    assert lost_process(ValueError("Connection closed by peer, gloo/transport/tcp/pair.cc")) is None


def test_how_to_go_on():
    assert _resume("fit", ["--output_dir", "a b"]).endswith(": fit --output_dir 'a b' --ckpt_path auto")
    assert _resume("fit", ["--ckpt_path", "last"]).endswith(": fit --ckpt_path last")
    assert _resume("test", []) == ""


def test_a_folder_that_one_does_not_see(tmp_path):
    def check(rank: int) -> None:
        group = CPUGroup(PATIENCE)
        check_shared_folder(tmp_path / "shared", group)
        with pytest.raises(ValueError, match=r"is not one folder for all machines \(not seen by 1 processes, on"):
            check_shared_folder(tmp_path / f"of{rank}", group)

    in_processes(tmp_path, check)
    assert not list(tmp_path.glob("*/.seen*"))


def test_the_network_between_machines(monkeypatch):
    monkeypatch.setattr(
        psutil, "net_if_stats", lambda: dict.fromkeys(("lo", "eth0", "ib0"), SimpleNamespace(isup=True))
    )

    def has(**addresses: str) -> None:
        found = {name: [SimpleNamespace(address=address)] for name, address in addresses.items()}
        monkeypatch.setattr(psutil, "net_if_addrs", lambda: found)

    source = "vlm_crash.parallel.hosts._source_address"
    monkeypatch.setattr(source, lambda address: "10.1.0.5")
    has(lo="127.0.0.1", eth0="192.168.1.5", ib0="10.1.0.5")
    assert interface_to("10.1.0.1") == "ib0"
    monkeypatch.setattr(source, lambda address: "127.0.0.1")  # the first machine, by a name in its own /etc/hosts
    with pytest.raises(ValueError, match=r"reaches first \(it has: eth0, ib0\); set the environment variable"):
        interface_to("first")
    has(lo="127.0.0.1", eth0="192.168.1.5")
    assert interface_to("first") == "eth0"


def test_gloo_is_told_only_where_its_own_way_leads_nowhere(monkeypatch):
    monkeypatch.setattr("vlm_crash.parallel.hosts.interface_to", lambda address: "ib0")
    monkeypatch.setenv(INTERFACE, "")
    monkeypatch.setattr(socket, "gethostname", lambda: "10.1.2.3")
    set_interface("10.1.0.1")
    assert os.environ[INTERFACE] == ""
    monkeypatch.setattr(socket, "gethostname", lambda: "127.0.1.1")
    set_interface("10.1.0.1")
    assert os.environ[INTERFACE] == "ib0"
    monkeypatch.setenv(INTERFACE, "eth7")
    set_interface("10.1.0.1")
    assert os.environ[INTERFACE] == "eth7"
    assert is_loopback("no-such-machine.invalid")
