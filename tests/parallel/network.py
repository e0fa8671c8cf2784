"""Two hosts on one machine: network namespaces, joined by a virtual cable."""

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

ADDRESSES = ("10.201.7.1", "10.201.7.2")  # inside the namespaces only
LINK = "eth0"


def ip(*arguments: object) -> None:
    subprocess.run(["ip", *map(str, arguments)], check=True, capture_output=True, text=True)


@contextmanager
def two_hosts() -> Iterator[tuple[str, str]]:
    """Names of two namespaces that reach each other and nothing else; gone at the end."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if shutil.which("ip") is None:
        pytest.skip("no ip command (iproute2)")
    mark = uuid.uuid4().hex[:6]
    hosts = (f"crash-{mark}-a", f"crash-{mark}-b")
    cable = (f"c{mark}a", f"c{mark}b")
    made = []
    try:
        try:
            for host in hosts:
                ip("netns", "add", host)
                made.append(host)
            ip("link", "add", cable[0], "type", "veth", "peer", "name", cable[1])
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
        for host, end, address in zip(hosts, cable, ADDRESSES, strict=True):
            ip("link", "set", end, "netns", host, "name", LINK)
            ip("-n", host, "addr", "add", f"{address}/24", "dev", LINK)
            ip("-n", host, "link", "set", "lo", "up")
            ip("-n", host, "link", "set", LINK, "up")
        yield hosts
    finally:
        for host in made:
            ip("netns", "delete", host)
        subprocess.run(["ip", "link", "delete", cable[0]], capture_output=True, check=False)  # where it was not moved
