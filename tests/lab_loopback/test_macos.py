"""The lab on a machine that lacks what macOS lacks (see mac.py for what that leaves out): addresses, the story's probes, and nothing left."""

import json
import os
import pathlib
import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from mac import Mac, machine

from meshtls.lab import addresses, state
from meshtls.lab.launch import LOST

pytestmark = pytest.mark.lab
SHOP = pathlib.Path(__file__).parents[2] / "examples" / "shop"
BLOCK = {f"127.64.0.{number}" for number in range(1, 253)}


@pytest.fixture
def user(tmp_path: pathlib.Path) -> Iterator[Mac]:
    with machine(tmp_path, 1000) as mac:
        yield mac


@pytest.fixture
def root(tmp_path: pathlib.Path) -> Iterator[Mac]:
    with machine(tmp_path, 0) as mac:
        yield mac


def killed(mac: Mac, name: str) -> Any:
    """What was known of a lab whose process has just been killed."""
    found = json.loads((mac.labs / name / "state.json").read_text())
    os.kill(found["pid"], signal.SIGKILL)
    return found


def test_a_user_is_told_the_one_command_that_is_missing_and_then_the_shop_lives(user: Mac) -> None:
    refused = user.meshtls("lab", "up", "--name", "shop")
    assert refused.returncode == 3
    (line,) = refused.stderr.splitlines()
    asked = re.search(r"sudo sh -c '(.*)'\)$", line)
    assert asked and not list(user.labs.iterdir()), line

    done = user.sudo(asked[1])
    assert done.returncode == 0, done.stderr
    assert user.addresses() == BLOCK | {"127.0.0.1"}
    up = user.meshtls("lab", "up", "--name", "shop", "-f", str(SHOP), "--wait")
    assert up.returncode == 0, up.stderr
    assert "loopback mode" in up.stderr and all(lost in up.stderr for lost in LOST)
    probed = user.meshtls("probe", "--kubeconfig", str(user.labs / "shop" / "kubeconfig"), "-n", "shop,legacy", "-o", "json")
    assert probed.returncode == 0, probed.stderr
    cells = [cell for matrix in json.loads(probed.stdout)["matrices"] for cell in matrix["cells"]]
    assert len(cells) > 40 and all(cell["ok"] is True for cell in cells)
    assert {"MTLS", "PLAINTEXT", "REFUSED"} <= {cell["observed"] for cell in cells}
    assert "sudo sh -c 'for i in $(seq 252); do ifconfig lo0 alias 127.65." in user.meshtls("lab", "up", "--name", "another").stderr

    found = killed(user, "shop")
    assert user.meshtls("lab", "down", "--name", "shop").returncode == 0
    assert not list(user.labs.iterdir()) and not list(state.marked(found["mark"]))
    assert user.addresses() == BLOCK | {"127.0.0.1"}  # they were there before


def test_roots_lab_adds_its_addresses_and_takes_them_off_again_also_after_a_kill(root: Mac) -> None:
    up = root.meshtls("lab", "up", "--name", "one")
    assert up.returncode == 0, up.stderr
    assert root.addresses() == BLOCK | {"127.0.0.1"}
    assert root.meshtls("lab", "down", "--name", "one").returncode == 0
    assert root.addresses() == {"127.0.0.1"}

    assert root.meshtls("lab", "up", "--name", "two").returncode == 0
    found = killed(root, "two")
    assert found["added"] in addresses.BLOCKS and len(root.addresses()) > 1
    assert root.meshtls("lab", "down", "--name", "two").returncode == 0
    assert root.addresses() == {"127.0.0.1"} and not list(root.labs.iterdir())
