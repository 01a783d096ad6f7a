"""Workloads of one shape share an answer: it is the same that each would get alone."""

import msgspec
import policy_meshes as meshes

from meshtls.policy.engine import Engine
from meshtls.policy.server import _of, modes


def test_shared_answers_are_what_each_workload_gets_alone():
    for number, recorded in enumerate(meshes.recorded("istiod.jsonl.gz")):
        if number % 10:
            continue
        objects = recorded["objects"]
        for copy in range(3):  # more of the same, so that there is something to share
            for o in [o for o in recorded["objects"] if o["kind"] in ("Deployment", "ReplicaSet", "Pod")]:
                objects = [*objects, _renamed(o, f"-copy{copy}")]
        found = meshes.mesh(objects)
        alone = [m for w in found.workloads for m in _of(Engine.of(found), w)]
        assert [msgspec.to_builtins(m) for m in modes(found)] == [msgspec.to_builtins(m) for m in alone]


def _renamed(o, suffix):
    meta = {**o["metadata"], "name": o["metadata"]["name"] + suffix, "uid": o["metadata"]["uid"] + suffix}
    if "ownerReferences" in meta:
        meta["ownerReferences"] = [{**r, "name": r["name"] + suffix} for r in meta["ownerReferences"]]
    return {**o, "metadata": meta}
