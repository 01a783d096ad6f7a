"""The demo as a new user meets it: on a terminal of 80 columns it tells what the README shows; stopped at any moment it leaves nothing."""

import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import sys
import time

import pytest

from meshtls.lab import state

pytestmark = pytest.mark.lab
ROOT = pathlib.Path(__file__).parents[2]
LIMIT_S = 240.0


class Terminal:
    """A demo on a terminal of its own; `said` is what it printed so far, without colours."""

    def __init__(self, folder: pathlib.Path, **environment: str) -> None:
        self.page = folder / "report.html"
        command = [sys.executable, "-m", "meshtls.cli.main", "lab", "demo", "--examples", str(ROOT / "examples" / "shop"), "--output", str(self.page)]
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update({"TERM": "xterm", "PYTHONPATH": str(ROOT), **environment})
            os.execvp("sh", ["sh", "-c", 'stty cols 80 rows 50 && exec "$0" "$@"', *command])
        self.raw, self.code = b"", -1

    @property
    def said(self) -> str:
        return re.sub(r"\x1b\[[0-9;]*m", "", self.raw.decode(errors="replace")).replace("\r", "")

    def read(self, until: str = "") -> None:
        """Read until it has said so, or ended."""
        deadline = time.monotonic() + LIMIT_S
        while until not in self.said or not until:
            assert time.monotonic() < deadline, self.said[-2000:]
            if not select.select([self.fd], [], [], 1.0)[0]:
                continue
            try:
                self.raw += os.read(self.fd, 65536)
            except OSError:
                break
        if not until or until not in self.said:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    @property
    def lab(self) -> str:
        return f"demo-{self.pid}"


def left(lab: str) -> list[str]:
    """Processes and files of a lab that should be gone."""
    lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in lines if f"--name {lab} " in line] + [name for name in state.names() if name == lab]


def shown() -> list[str]:
    """The lines of the README's picture, which the demo must print in this order."""
    text = (ROOT / "README.md").read_text()
    picture = text[text.index("$ meshtls probe -n shop,payments"):]
    return [line for line in picture[:picture.index("```")].splitlines() if line.strip(". ")]


def test_the_demo_tells_what_the_readme_shows(tmp_path: pathlib.Path) -> None:
    demo = Terminal(tmp_path)
    demo.read()

    assert demo.code == 0, demo.said[-3000:]
    assert "10 of 10 steps as told" in demo.said
    rest = demo.said.split("\n")
    for line in shown():
        pattern = re.compile(re.escape(line.rstrip()).replace(re.escape("..."), ".*") + r"\s*")
        found = next((number for number, said in enumerate(rest) if pattern.fullmatch(said)), None)
        assert found is not None, f"not said, or not in this order: {line}"
        rest = rest[found + 1:]
    wide = [line for line in demo.said.split("\n") if len(line) > 80 and ("✓" in line or line.startswith("Port "))]
    assert wide == []
    assert demo.page.read_text().startswith("<!doctype html>")
    assert left(demo.lab) == []


@pytest.mark.parametrize("moment", ["$ meshtls lab up", "stage canary: watching", "Lab down."])
def test_a_demo_that_is_interrupted_leaves_nothing_and_writes_its_report(tmp_path: pathlib.Path, moment: str) -> None:
    demo = Terminal(tmp_path, NO_COLOR="1")
    demo.read(moment)
    os.write(demo.fd, b"\x03")
    demo.read()

    assert demo.code == 130, demo.said[-2000:]
    assert demo.page.exists()
    assert "Traceback" not in demo.said
    assert b"\x1b" not in demo.raw, "NO_COLOR is honoured"
    assert left(demo.lab) == []


def test_a_terminal_that_hangs_up_takes_the_lab_with_it(tmp_path: pathlib.Path) -> None:
    demo = Terminal(tmp_path)
    demo.read("objects applied")
    os.close(demo.fd)
    os.waitpid(demo.pid, 0)
    assert left(demo.lab) == []


def test_a_second_interrupt_ends_at_once_and_says_how_to_tidy_up(tmp_path: pathlib.Path) -> None:
    demo = Terminal(tmp_path, TERM="dumb")
    demo.read("objects applied")
    for _ in range(2):
        os.kill(demo.pid, signal.SIGINT)
        time.sleep(0.02)
    demo.read()

    assert demo.code == 130
    assert b"\x1b" not in demo.raw, "TERM=dumb is honoured"
    command = f"meshtls lab down --name {demo.lab}"
    if f"run: {command}" in demo.said:
        subprocess.run([sys.executable, "-m", "meshtls.cli.main", *command.split()[1:]], check=True, timeout=60, capture_output=True)
    assert left(demo.lab) == []



def test_a_reader_that_leaves_early_ends_the_demo_as_such_and_leaves_no_lab(tmp_path: pathlib.Path) -> None:
    """`scripts/demo | head -1`: the lab did come up, and nothing says otherwise."""
    page = tmp_path / "report.html"
    demo = subprocess.Popen([sys.executable, "-m", "meshtls.cli.main", "lab", "demo", "--examples", str(ROOT / "examples" / "shop"), "--output", str(page)],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True)
    assert demo.stdout is not None and demo.stderr is not None
    demo.stdout.readline()
    demo.stdout.close()
    said = demo.stderr.read()
    demo.stderr.close()

    assert demo.wait(LIMIT_S) == 141
    assert "nobody reads standard output any more" in said and "did not come up" not in said
    assert page.exists() and left(f"demo-{demo.pid}") == []
