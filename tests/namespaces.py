"""Two hosts in network namespaces of this machine, joined by a cable (a veth pair)."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Host:
    """A network namespace."""

    name: str
    address: str
    device: str

    def argv(self, *argv: object) -> tuple[str, ...]:
        """The command that runs `argv` on this host."""
        return ("ip", "netns", "exec", self.name, *map(str, argv))

    def unplug(self) -> None:
        ip("-n", self.name, "link", "set", self.device, "down")

    def plug_in(self) -> None:
        ip("-n", self.name, "link", "set", self.device, "up")

    def processes(self) -> list[int]:
        shown = subprocess.run(
            ("ip", "netns", "pids", self.name), check=True, capture_output=True, text=True
        )
        return [int(pid) for pid in shown.stdout.split()]


@contextmanager
def two_hosts() -> Iterator[list[Host]]:
    """Needs root; everything is gone afterwards."""
    tag = f"{os.getpid() % 100_000}"
    hosts = [
        Host(name=f"tune{tag}-{n}", address=f"10.213.8.{n + 1}", device=f"tu{tag}{n}")
        for n in range(2)
    ]
    try:
        for host in hosts:
            ip("netns", "add", host.name)
        one, other = hosts
        ip(
            "link", "add", one.device, "netns", one.name,
            "type", "veth", "peer", "name", other.device, "netns", other.name,
        )  # fmt: skip
        for host in hosts:
            ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", host.device)
            for device in (host.device, "lo"):
                ip("-n", host.name, "link", "set", device, "up")
        yield hosts
    finally:
        for host in hosts:
            # its end of the cable goes with it
            subprocess.run(("ip", "netns", "del", host.name), check=False)


def ip(*arguments: str) -> None:
    subprocess.run(("ip", *arguments), check=True)
