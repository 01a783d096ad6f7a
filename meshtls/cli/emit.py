"""`meshtls migrate plan --emit DIR`: the stages as files that can be committed. Nothing is written over."""

import contextlib
import os
from typing import TYPE_CHECKING, Any

from meshtls.cli.output import write
from meshtls.errors import InputError, NotFound
from meshtls.migrate.files import folders
from meshtls.migrate.plan import Plan

if TYPE_CHECKING:
    from meshtls.cluster.client import Client


def emit(client: "Client", plan: Plan, directory: str) -> list[str]:
    """Write the plan's folders into `directory`/NAMESPACE; returns what was written. Raises InputError."""
    home = os.path.join(directory, plan.namespace)
    if os.path.exists(home):
        raise InputError(f"{home} exists: what was committed from it is not written over", "name another directory, or remove it")
    live: dict[str, dict[str, Any] | None] = {}
    for stage in plan.stages:
        live.setdefault(stage.policy, None)
        with contextlib.suppress(NotFound):
            live[stage.policy] = client.get("PeerAuthentication", stage.policy, plan.namespace)
    made = []
    for folder, files in folders(plan, live):
        path = os.path.join(home, folder)
        try:
            os.makedirs(path, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror or error}", "name a directory that you can write") from error
        for name, text in files.items():
            write(os.path.join(path, name), text)
            made.append(os.path.join(path, name))
    return made
