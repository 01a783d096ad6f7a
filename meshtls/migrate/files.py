"""A plan as files to commit, for who changes a cluster through Git: one folder a stage, each complete. Pure.

    0-before        the policies that the plan touches, as they are: to commit again is the way back
    1-canary        the same after the stage, and so on for each
    N-done          as it stays: the temporary ones are gone

A folder is the whole truth about these policies at that stage: what is not in it must not be in the cluster either. What the
server adds to an object, and what other commands noted on it, is left out.
"""

from typing import Any

import yaml

from meshtls.migrate.journal import Entry, intent, written
from meshtls.migrate.plan import Plan

_SERVERS = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "selfLink", "deletionTimestamp", "ownerReferences")
_NOTES = ("kubectl.kubernetes.io/last-applied-configuration", "meshtls.dev/migration")


def folders(plan: Plan, live: dict[str, dict[str, Any] | None]) -> list[tuple[str, dict[str, str]]]:
    """(folder, file name -> text) of each stage in order; `live` are the plan's policies as they are now (None: absent)."""
    now = {name: obj for name, obj in live.items() if obj is not None}
    found = [("0-before", _files(now))]
    for number, stage in enumerate(plan.stages, 1):
        entry = intent(Entry(stage=stage), now.get(stage.policy))
        now = now | {stage.policy: written(entry, plan.namespace, "")}
        found.append((f"{number}-{stage.id}", _files(now)))
    for stage in plan.stages:
        if stage.temporary:
            before = live.get(stage.policy)
            now = {name: obj for name, obj in now.items() if name != stage.policy} | ({stage.policy: before} if before else {})
    if any(stage.temporary for stage in plan.stages):
        found.append((f"{len(plan.stages) + 1}-done", _files(now)))
    return found


def _files(objects: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {f"{name}.yaml": str(yaml.safe_dump(_clean(obj), sort_keys=False)) for name, obj in sorted(objects.items())}


def _clean(obj: dict[str, Any]) -> dict[str, Any]:
    """The object as one would write it: its own fields in the usual order."""
    meta = {key: value for key, value in obj["metadata"].items() if key not in _SERVERS}
    notes = {key: value for key, value in (meta.pop("annotations", None) or {}).items() if key not in _NOTES}
    labels = {key: value for key, value in (meta.pop("labels", None) or {}).items() if (key, value) != ("app.kubernetes.io/managed-by", "meshtls")}
    head = {"name": meta.pop("name"), "namespace": meta.pop("namespace")}
    kept = head | ({"labels": labels} if labels else {}) | ({"annotations": notes} if notes else {}) | meta
    return {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": kept, "spec": obj.get("spec") or {}}
