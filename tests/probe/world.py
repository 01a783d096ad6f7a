"""A cluster that is a dict: it injects sidecars by label, and its agents answer as the table of expect.py says.

Faults are given by name and come at their place. Nothing here waits.
"""

import json
import threading

from meshtls.errors import Conflict, Forbidden, NotFound
from meshtls.model.mesh import Mesh
from meshtls.model.objects import Metadata, Namespace, Pod
from meshtls.probe.case import Mode, Outcome
from meshtls.probe.expect import expectation
from meshtls.probe.plan import Wanted, plan

SPIFFE = "spiffe://cluster.local/ns/x/sa/y"


def mesh(*namespaces, pods=()):
    return Mesh(namespaces=tuple(Namespace(metadata=Metadata(name=ns)) for ns in namespaces), pods=tuple(pods))


def a_plan(
    *namespaces,
    offers=("plaintext", "tls", "unknown-ca", "mtls"),
    mode_of=lambda pod, port: (Mode.UNKNOWN, ()),
    **wanted,
):
    pods = wanted.pop("pods", ())
    asked = Wanted(namespaces=namespaces, offers=offers, **wanted)
    return plan(mesh(*namespaces, pods=pods), asked, mode_of)


def pod(name, namespace="a", *, ip="10.0.0.9", **fields):
    from msgspec import convert

    body = {"metadata": {"name": name, "namespace": namespace, **fields.pop("metadata", {})},
            "spec": {"containers": [{"name": "app", "ports": [{"containerPort": 8080}]}], **fields.pop("spec", {})},
            "status": {"phase": "Running", "podIP": ip, **fields.pop("status", {})}}  # fmt: skip
    return convert(body, Pod)


def line(case, outcome, **more):
    shown = {"cert": {"uris": [SPIFFE]}, "asks_cert": True} if more.pop("mesh", False) else {}
    return {
        "schema": "meshtls.dev/probe-result/v1",
        "id": case,
        "outcome": str(outcome),
        "reason": "R",
        "ms": {"total": 1.0},
        **shown,
        **more,
    }


def answer(case, mode, http):
    """The agent's line for a planned case towards a port of `mode`."""
    expected = expectation(case, mode)
    if expected.outcome is Outcome.MTLS and not http:
        return line(case.id, "NOT_RUN", answered=True)
    return line(case.id, expected.outcome, mesh=bool(expected.mesh_cert))


class Cluster:
    """Answers as meshtls.cluster.client.Client does. `faults`: name -> whatever that fault needs."""

    def __init__(self, plan_=None, modes=None, **faults):
        self.plan, self.modes, self.faults = plan_, modes or {}, faults
        self.objects, self.log, self.lock = {}, [], threading.Lock()

    def create(self, obj, namespace=None, dry_run=False):
        kind, meta = obj["kind"], obj["metadata"]
        key = (kind, meta["namespace"], meta["name"])
        refuse = self.faults.get("refuse", lambda obj, dry_run: None)(obj, dry_run)
        if refuse:
            raise Forbidden(refuse, status=403)
        if dry_run:
            return obj
        with self.lock:
            if key in self.objects:
                raise Conflict("exists", status=409)
            self.log.append(("create", *key))
            obj = json.loads(json.dumps(obj))
            if kind == "Pod":
                self._start(obj)
            elif kind == "Service":
                obj["spec"]["clusterIP"] = f"10.96.0.{len(self.objects) + 1}"
            self.objects[key] = obj
        after = self.faults.get("after_create")
        if after:
            after(obj)
        return obj

    def _start(self, obj):
        labels = obj["metadata"]["labels"]
        if labels["sidecar.istio.io/inject"] == "true" and not self.faults.get("never_inject"):
            obj["spec"]["initContainers"] = [{"name": "istio-proxy", "restartPolicy": "Always"}]
            labels["security.istio.io/tlsMode"] = "istio"
        number = len(self.objects) + 1
        ready = "False" if self.faults.get("never_ready") else "True"
        obj["status"] = {"phase": "Running", "podIP": f"10.1.0.{number}", "conditions": [{"type": "Ready", "status": ready, "message": "" if ready == "True" else "not yet"}],
                         "containerStatuses": [{"name": "probe", "state": self.faults.get("state", {"running": {}})}]}  # fmt: skip

    def list(self, kind, namespace=None, labels="", fields=""):
        wanted = dict(part.split("=") for part in labels.split(",") if "=" in part)
        with self.lock:
            return [obj for (k, ns, _), obj in sorted(self.objects.items()) if k == kind and namespace in (None, ns)
                    and wanted.items() <= obj["metadata"].get("labels", {}).items()]  # fmt: skip

    def get(self, kind, name, namespace=None):
        try:
            return self.objects[kind, namespace, name]
        except KeyError:
            raise NotFound(name, status=404) from None

    def delete(self, kind, name, namespace=None, uid=None, resource_version=None, grace_s=None, dry_run=False):
        self.faults.get("on_delete", lambda *key: None)(kind, namespace, name)
        with self.lock:
            self.log.append(("delete", kind, namespace, name))
            if self.objects.pop((kind, namespace, name), None) is None:
                raise NotFound(name, status=404)

    def logs(self, namespace, pod, container="", follow=False, since_time="", tail=None, timeout_s=None, opened=None):
        if container == "istio-proxy":
            yield from self.faults.get("access_log", lambda cluster: [])(self)
        elif "-echo-" in pod:
            yield '{"ready": true}'
        else:
            yield from self._answers(namespace, pod, follow)

    def _answers(self, namespace, pod, follow):
        document = json.loads(self.objects["ConfigMap", namespace, pod]["data"]["cases.json"])
        asked = [case["id"] for case in document["cases"]]
        known = {case.id: case for case in self.plan.cases}
        lines = [{"schema": "meshtls.dev/probe-result/v1", "start": True, "agent": pod, "cases": len(asked)}]
        for number in asked:
            if number in known:
                case = known[number]
                mode = (
                    self.modes.get((case.server, case.port), Mode.PERMISSIVE) if case.server.meshed else Mode.UNENFORCED
                )
                lines.append(answer(case, mode, case.port.protocol == "http"))
            else:
                lines.append(line(number, "REFUSED", mesh=True))
        lines.append(
            {
                "schema": "meshtls.dev/probe-result/v1",
                "done": True,
                "count": len(asked),
                "cases": len(asked),
                "seconds": 0.1,
            }
        )
        for entry in self.faults.get("lines", lambda lines, follow: lines)(lines, follow):
            yield entry if isinstance(entry, str) else json.dumps(entry)
