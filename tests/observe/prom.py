"""A real Prometheus for a test, on a free port: with a history that the test writes, or scraping what its configuration says."""

import contextlib
import http.client
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

PROGRAMS = [shutil.which("prometheus"), shutil.which("promtool")]
NEEDED = [
    pytest.mark.prometheus,
    pytest.mark.skipif(not all(PROGRAMS), reason="no Prometheus: apt-get install prometheus"),
]


def history(folder: Path, samples: Iterable[tuple[str, float, float]]) -> None:
    """Write samples (series, time, value) as if they had been scraped; a counter's name ends in _total, all others are gauges."""
    families: dict[str, list[str]] = {}
    for series, at, value in samples:
        name = series.partition("{")[0].removesuffix("_total")
        families.setdefault(name, []).append(f"{series} {value:g} {at:.3f}")
    lines = []
    for name, its in sorted(families.items()):
        lines += [f"# TYPE {name} {'counter' if its[0].startswith(f'{name}_total') else 'gauge'}", *its]
    text = folder / "history.txt"
    text.write_text("\n".join([*lines, "# EOF", ""]))
    command = [str(PROGRAMS[1]), "tsdb", "create-blocks-from", "openmetrics", str(text), str(folder / "data")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def running(folder: Path, config: str = "", web: str = "", limits: Iterable[str] = ()) -> Iterator[str]:
    """Its URL, once it answers. `web` is its own TLS and log-in configuration; `folder`/data its data."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "prometheus.yml").write_text(config or "global: {}\n")
    (folder / "web.yml").write_text(web or "{}\n")
    command = [str(PROGRAMS[0]), f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
               f"--web.listen-address=127.0.0.1:{port}", f"--web.config.file={folder / 'web.yml'}", *limits]  # fmt: skip
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while (said := _ready(port)) not in (200, 400, 401):  # 400: it wants TLS, 401: a log-in
            assert process.poll() is None and time.monotonic() < deadline, (said, (folder / "log").read_text()[-2000:])
            time.sleep(0.05)
        yield f"{'https' if 'tls_server_config' in web else 'http'}://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _ready(port: int) -> int | str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/-/ready")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__
    finally:
        connection.close()
