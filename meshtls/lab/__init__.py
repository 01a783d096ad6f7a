"""A mesh on this machine: real Envoys in network namespaces behind a small Kubernetes API.

    with Lab(manifests=["examples/shop"]) as lab:      # ready when the block begins, gone when it ends
        subprocess.run(["kubectl", "--kubeconfig", lab.kubeconfig, "get", "pods", "-A"])
        with lab.client() as client:
            client.list("Pod")
"""
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshtls.cluster.client import Client

__all__ = ["Lab"]


class Lab:
    """A lab of its own, which ends with the block or with this process, whatever ends it. Raises LabError when it cannot be.

    `mesh` is laid over Istio's MeshConfig, `values` over the injector's values; `nodes` are lab-1, lab-2...; `mode` is
    namespaces or loopback, by default what this machine allows.
    """

    def __init__(self, name: str = "", manifests: Iterable[str | Path | dict[str, Any]] = (), *, nodes: int = 1, mode: str = "",
                 mesh: dict[str, Any] | None = None, values: dict[str, Any] | None = None, timeout_s: float = 60.0) -> None:
        self.name = name or f"t-{os.getpid()}-{secrets.token_hex(3)}"
        self.timeout_s = timeout_s
        self._manifests, self._nodes, self._mode = list(manifests), nodes, mode
        self._settings = {key: value for key, value in (("mesh", mesh), ("values", values)) if value}
        self._held = -1

    def __enter__(self) -> "Lab":
        from meshtls.lab import launch, manifests

        objects = manifests.read(self._manifests)
        _, self._held = launch.launch(self.name, nodes=self._nodes, mode=self._mode, settings=self._settings, owned=True)
        try:
            if objects:
                self.apply(*objects)
                self.wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        from meshtls.lab import state

        if self._held >= 0:
            os.close(self._held)
            self._held = -1
        state.clear(self.name)

    @property
    def kubeconfig(self) -> str:
        """The path of its kubeconfig."""
        from meshtls.lab import state

        return str(state.directory(self.name) / "kubeconfig")

    @property
    def log(self) -> str:
        """What the lab's process itself has written."""
        from meshtls.lab import state

        return (state.directory(self.name) / "lab.log").read_text(errors="replace")

    def client(self) -> "Client":
        """A client of its API, to be closed."""
        from meshtls.cluster.client import Client

        return Client.connect(kubeconfig=self.kubeconfig)

    def apply(self, *what: str | Path | dict[str, Any]) -> int:
        """Apply files, directories or objects; how many objects."""
        from meshtls.lab import manifests

        with self.client() as client:
            return manifests.apply(client, manifests.read(what))

    def wait(self) -> None:
        """Until all that is declared is ready. Raises LabError naming what is not."""
        from meshtls.lab import manifests

        with self.client() as client:
            manifests.wait(client, self.timeout_s)
