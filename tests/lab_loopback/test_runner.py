"""A lab whose runner is killed ends, and all that it ran with it, in either mode."""

import os
import signal

import psutil
import pytest

from meshtls.errors import LabError
from meshtls.lab import launch, state
from tests.lab_story import scene

pytestmark = pytest.mark.lab
STAY = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\nwhile True: signal.pause()"


@pytest.mark.parametrize("mode", [state.LOOPBACK, state.NAMESPACES])
def test_nothing_outlives_the_runner(mode: str) -> None:
    from meshtls.cluster.client import Client

    name, mark = f"runner-{mode}-{os.getpid()}", f"{os.getpid()}-{mode}"
    try:
        found, _ = launch.launch(name, mode=mode)
    except LabError as error:
        pytest.skip(str(error))
    try:
        with Client.connect(kubeconfig=str(state.directory(name) / "kubeconfig")) as client:
            client.create(scene.pod("stays", "default", scene.container(STAY, mark)))
            scene.until(lambda: "up" in scene.lines(client, "default", "stays"))
        (program,) = [one for one in psutil.process_iter() if _last_word(one) == mark]
        (runner,) = [one for one in psutil.Process(found.pid).children() if "meshtls.lab.process" in " ".join(one.cmdline())]
        runner.send_signal(signal.SIGKILL)
        scene.until(lambda: not state.alive(found) and not program.is_running(), 30)
        assert not list(state.marked(found.mark))
    finally:
        state.clear(name)


def _last_word(process: psutil.Process) -> str:
    try:
        return (process.cmdline() or [""])[-1]
    except psutil.Error:
        return ""
