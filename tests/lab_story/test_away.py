"""The API server goes away in the middle of a soak, on real Envoys: it is told of, waited for, and the run goes on."""

import contextlib
import functools
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading

import pytest
import yaml

from meshtls.lab import Lab

SHOP = pathlib.Path(__file__).parents[2] / "examples" / "shop"
pytestmark = pytest.mark.lab


class Relay:
    """A TCP relay to one server on a port of its own; `cut` ends every connection and refuses new ones, `mend` takes them again."""

    def __init__(self, host: str, port: int) -> None:
        self.to, self.port = (host, port), 0
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.mend()

    def mend(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def cut(self) -> None:
        # a listener that another thread waits on is closed only once it is shut down
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        with client, socket.create_connection(self.to) as server:
            with self._lock:
                self._open |= {client, server}
            back = threading.Thread(target=self._copy, args=(server, client), daemon=True)
            back.start()
            self._copy(client, server)
            back.join()
            with self._lock:
                self._open -= {client, server}

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def lab():
    with Lab(manifests=[SHOP]) as lab:
        yield lab


@pytest.fixture
def relay(lab, tmp_path):
    """A relay, and the kubeconfig that leads through it."""
    config = yaml.safe_load(pathlib.Path(lab.kubeconfig).read_text())
    cluster = config["clusters"][0]["cluster"]
    host, _, port = cluster["server"].removeprefix("https://").partition(":")
    made = Relay(host, int(port))
    cluster["server"] = f"https://127.0.0.1:{made.port}"
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    yield made, str(path)
    made.cut()


def started(kubeconfig: str, *args: str) -> subprocess.Popen:
    heed = functools.partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)
    return subprocess.Popen([sys.executable, "-m", "meshtls.cli.main", "migrate", *args], env={**os.environ, "KUBECONFIG": kubeconfig},
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heed)  # fmt: skip


def heard(process: subprocess.Popen, text: str) -> None:
    said = []
    for line in process.stderr:
        said.append(line)
        if text in line:
            return
    raise AssertionError("".join(said))


def test_a_run_outlasts_a_server_that_restarts_while_it_soaks(lab, relay) -> None:
    through, kubeconfig = relay
    process = started(kubeconfig, "apply", "-n", "shop", "--yes", "--soak", "4s")
    heard(process, "stage canary: watching")
    through.cut()
    heard(process, "no answer from https://127.0.0.1")
    through.mend()
    heard(process, "answers again")
    out, err = process.communicate(timeout=180)

    assert process.returncode == 0, err + out
    back = started(lab.kubeconfig, "rollback", "-n", "shop", "--yes")
    out, err = back.communicate(timeout=120)
    assert back.returncode == 0, err
