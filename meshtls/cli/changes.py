"""The exact changes of a plan: what each stage is, and its objects as a unified diff of YAML. This is data: standard output."""

import contextlib
import difflib
from typing import TYPE_CHECKING, Any

import yaml

from meshtls.errors import NotFound
from meshtls.migrate.journal import Entry, intent, written
from meshtls.report.text import plural

if TYPE_CHECKING:
    from meshtls.cluster.client import Client
    from meshtls.migrate.plan import Plan, Stage


def stage(namespace: str, one: "Stage") -> str:
    """One stage in a line."""
    how = "create" if one.create else "patch"
    return f"{namespace}: will {how} PeerAuthentication {one.policy}: {one.id} to {one.mode} ({plural(len(one.workloads), 'workload')})"


def diffs(client: "Client", found: "Plan") -> list[str]:
    """The unified diff of each stage. An object that an earlier stage makes or changes is taken as it will be then."""
    made: dict[str, dict[str, Any]] = {}
    texts = []
    for one in found.stages:
        live: dict[str, Any] | None = made.get(one.policy)
        if live is None and not one.create:
            with contextlib.suppress(NotFound):
                live = client.get("PeerAuthentication", one.policy, found.namespace)
        after = made[one.policy] = written(intent(Entry(stage=one), live), found.namespace, "RUN")
        name = f"PeerAuthentication/{found.namespace}/{one.policy}"
        lines = difflib.unified_diff(_yaml(live), _yaml(after), name if live else "/dev/null", f"{name} ({one.id})", lineterm="")
        texts.append("\n".join(lines))
    return texts


def _yaml(obj: dict[str, Any] | None) -> list[str]:
    if obj is None:
        return []
    meta = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    return str(yaml.safe_dump({**obj, "metadata": meta}, sort_keys=True)).splitlines()
