"""The loopback addresses that a lab without namespaces lives on: a block 127.N.0.0/16, whose number it claims by a UDP port of 127.0.0.1.

Linux answers on all of 127.0.0.0/8. macOS has 127.0.0.1 alone: any other address must be put on the interface first, which only root may, and
is gone after the next start of the machine. There a block has FEW pods; root's labs add its addresses and remove them, others need them there.
"""
import os
import random
import socket
import subprocess
import time

import msgspec

from meshtls.errors import LabError

BLOCKS = range(64, 250)
EACH, FEW, MANY = 3, 84, 21_000  # addresses of a pod, pods of a block
FIRST_PORT = 15000
LEAVING_S = 2.0  # a process that was killed keeps its sockets for a moment


class Claim(msgspec.Struct, frozen=True):
    """A block that is ours while `line`, a UDP socket, is open. `missing` says that its addresses are to be added."""

    block: int
    line: socket.socket
    pods: int
    missing: bool


def command(block: int, verb: str = "alias") -> str:
    """What puts a block's addresses on the interface, or takes them off."""
    return f"for i in $(seq {EACH * FEW}); do ifconfig lo0 {verb} 127.{block}.0.$i; done"


def claim() -> Claim:
    """Raises LabError when no block is free."""
    everywhere = there(BLOCKS.stop)  # nobody adds this one
    adding = not everywhere and os.geteuid() == 0
    blocks = [block for block in random.sample(BLOCKS, len(BLOCKS)) if everywhere or there(block) is not adding]
    for block in blocks if everywhere else sorted(blocks):
        if line := _bound("127.0.0.1", FIRST_PORT + block):
            return Claim(block, line, MANY if everywhere else FEW, adding)
    if everywhere or adding:
        raise LabError("no block of addresses is free for a lab", "end another lab: meshtls lab down --all")
    raise LabError(f"this system's loopback interface lacks addresses for {'one more' if blocks else 'a'} lab",
                   f"add them, once after each start of the machine: sudo sh -c '{command(min(set(BLOCKS) - set(blocks)))}'")


def add(block: int) -> None:
    """Put a block's addresses on the interface, as root. Raises LabError."""
    done = subprocess.run(["sh", "-c", command(block)], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if not there(block):
        raise LabError(f"cannot add addresses to the loopback interface: {done.stderr.strip()[-200:]}", f"try it by hand: {command(block)}")


def remove(block: int) -> None:
    """Take a block's addresses off again, unless another lab uses them by now; nothing happens for block 0."""
    until = time.monotonic() + LEAVING_S
    while block:
        if line := _bound("127.0.0.1", FIRST_PORT + block):
            with line:
                subprocess.run(["sh", "-c", command(block, "-alias")], stdin=subprocess.DEVNULL, capture_output=True, check=False)
            return
        if time.monotonic() > until:
            return
        time.sleep(0.01)


def there(block: int) -> bool:
    """Whether a block's last address, of FEW pods, answers."""
    sock = _bound(f"127.{block}.0.{EACH * FEW}", 0)
    if sock:
        sock.close()
    return sock is not None


def _bound(ip: str, port: int) -> socket.socket | None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.bind((ip, port))
        return sock
    except OSError:
        sock.close()
        return None
