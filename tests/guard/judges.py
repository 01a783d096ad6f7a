"""Who is asked about a case: an API server that holds the guard as ValidatingAdmissionPolicies."""

import re

import httpx

from meshtls.guard.rules import TARGETS, Rule, Target
from tests.guard.cases import Case, Object

PLURALS = {
    "PeerAuthentication": "peerauthentications", "DestinationRule": "destinationrules", "Pod": "pods", "Deployment": "deployments",
    "StatefulSet": "statefulsets", "DaemonSet": "daemonsets", "Job": "jobs", "CronJob": "cronjobs", "Namespace": "namespaces",
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies", "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
    "Service": "services", "ConfigMap": "configmaps",
}  # fmt: skip


def path(obj: Object, named: bool = False) -> str:
    group, _, version = obj["apiVersion"].rpartition("/")
    space = f"/namespaces/{obj['metadata']['namespace']}" if "namespace" in obj["metadata"] else ""
    base = f"/apis/{group}/{version}" if group else f"/api/{version}"
    return f"{base}{space}/{PLURALS[obj['kind']]}" + (f"/{obj['metadata']['name']}" if named else "")


def ask(http: httpx.Client, case: Case) -> httpx.Response:
    """The case as a dry run; what it is about before exists already, or is left out of the way for a creation."""
    dry = {"dryRun": "All"}
    match case.operation:
        case "CREATE":
            return http.post(path(case.subject), json=case.subject, params=dry)
        case "UPDATE":
            live = http.get(path(case.subject, True)).raise_for_status().json()
            wanted = {**case.subject, "metadata": {**live["metadata"], **case.subject["metadata"]}}
            if case.subject["kind"] == "Pod":  # what the server has filled in cannot be taken back
                wanted["spec"] = live["spec"]
            wanted["metadata"].pop("managedFields", None)
            if "kubernetes.io/metadata.name" in (live["metadata"].get("labels") or {}):
                wanted["metadata"]["labels"] = {**wanted["metadata"]["labels"], "kubernetes.io/metadata.name": live["metadata"]["name"]}
            return http.put(path(case.subject, True), json=wanted, params=dry)
        case _:
            return http.request("DELETE", path(case.subject, True), params=dry)


def refused_by(answer: httpx.Response) -> str:
    """The rule that refused, "" where it was taken, all of the answer where it was refused for another reason."""
    if answer.status_code in (200, 201, 409):  # that it exists already is found after admission
        return ""
    found = re.search(r"\(rule ([-a-z]+);", answer.json()["message"])
    return found[1] if found and answer.status_code == 403 else answer.text


def targets(rule: Rule) -> list[Target]:
    return [target for target in TARGETS if target.name in rule.targets]


def fill(http: httpx.Client, guard: list[Object]) -> None:
    """The world first, then what guards it."""
    from tests.guard.cases import _CAPTURED, _RUNNING, world

    for obj in (*world(), _CAPTURED, _RUNNING, *guard):
        answer = http.post(path(obj), json=obj)
        if answer.status_code == 409 and obj["kind"] == "Namespace":
            answer = http.patch(path(obj, True), json={"metadata": obj["metadata"]}, headers={"Content-Type": "application/merge-patch+json"})
        assert answer.status_code in (200, 201), answer.text
