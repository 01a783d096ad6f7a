"""The same requests, judged by Gatekeeper and by Kyverno themselves: by their command lines, where they are on PATH.

    go install github.com/open-policy-agent/gatekeeper/v3/cmd/gator@v3.20.1
    go build ./cmd/cli/kubectl-kyverno            (in a copy of kyverno; its module cannot be installed from afar)
"""

import json
import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
import yaml

from meshtls.guard.achieved import Kept, toward
from meshtls.guard.admission import admission
from meshtls.guard.rules import RULES, TARGETS, Target
from tests.guard import cases, judges

needs_gator = pytest.mark.skipif(not shutil.which("gator"), reason="gator, Gatekeeper's command line, is not on PATH")
needs_kyverno = pytest.mark.skipif(not shutil.which("kubectl-kyverno"), reason="kubectl-kyverno, Kyverno's command line, is not on PATH")


def review(case: cases.Case) -> cases.Object:
    """The case as the API server would ask a webhook."""
    subject = case.subject
    group, _, version = subject["apiVersion"].rpartition("/")
    request = {
        "uid": "00000000-0000-0000-0000-000000000000", "kind": {"group": group, "version": version, "kind": subject["kind"]},
        "resource": {"group": group, "version": version, "resource": judges.PLURALS[subject["kind"]]}, "name": subject["metadata"]["name"],
        "operation": case.operation, "userInfo": {"username": "somebody"}, "object": case.object, "oldObject": case.before,
    }  # fmt: skip
    if "namespace" in subject["metadata"]:
        request["namespace"] = subject["metadata"]["namespace"]
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {k: v for k, v in request.items() if v is not None}}


def concerns(kept: Kept, target: Target, case: cases.Case) -> bool:
    """Is the guard of a namespace asked about the case, by this target?"""
    if case.subject["kind"] not in {r.kind for r in target.resources}:
        return False
    match target.where:
        case "everywhere":
            return any(toward(kept, case.subject["metadata"]["namespace"], one["spec"]["host"]) for one in (case.object, case.before) if one)
        case "itself":
            return case.subject["metadata"]["name"] == kept.namespace
    return case.subject["metadata"]["namespace"] == kept.namespace


def suites() -> list[tuple[Kept, Target]]:
    return [(kept, target) for kept in cases.kept() for target in TARGETS if kept.scope in target.scopes and (kept.planes or "planes" not in target.data)]


@needs_gator
def test_gatekeeper_refuses_the_same_by_the_same_rules(tmp_path: Path) -> None:
    made = admission(cases.kept(), "gatekeeper")
    files = {}
    for number, manifest in enumerate(made):
        files[manifest["kind"], manifest["metadata"]["name"]] = tmp_path / f"m{number}.yaml"
        files[manifest["kind"], manifest["metadata"]["name"]].write_text(yaml.safe_dump(manifest))
    for number, case in enumerate(cases.CASES):
        (tmp_path / f"c{number}.yaml").write_text(json.dumps(review(case)))
    asked = 0
    tests = []
    for kept, target in suites():
        kind = f"MeshtlsGuard{target.name.capitalize()}"
        judged = []
        for number, case in enumerate(cases.CASES):
            if case.subject["kind"] not in {r.kind for r in target.resources}:
                continue
            expected = case.rule if concerns(kept, target, case) else ""
            wanted = {"violations": "yes", "message": re.escape(f"(rule {expected};")} if expected else {"violations": "no"}
            judged.append({"name": case.name, "object": f"c{number}.yaml", "assertions": [wanted]})
            asked += 1
        tests.append({"name": f"{kept.namespace} {target.name}", "template": files["ConstraintTemplate", kind.lower()].name,
                      "constraint": files[kind, f"meshtls-guard-{kept.namespace}-{target.name}"].name, "cases": judged})  # fmt: skip
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump({"apiVersion": "test.gatekeeper.sh/v1alpha1", "kind": "Suite", "tests": tests}))

    done = subprocess.run(["gator", "verify", str(tmp_path / "suite.yaml")], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert asked > len(cases.CASES)


def _by_kyverno(tmp_path: Path, operation: str, several: list[cases.Case]) -> dict[str, list[str]]:
    """Case -> the rules that refuse it. Kyverno's command line is asked once: each case's object has a name of its own."""
    policies = tmp_path / "policies.yaml"
    policies.write_text(yaml.safe_dump_all(admission(cases.kept(), "kyverno")))
    values = tmp_path / f"values-{operation}.yaml"
    spaces = [{"name": o["metadata"]["name"], "labels": {**o["metadata"]["labels"], "kubernetes.io/metadata.name": o["metadata"]["name"]}}
              for o in cases.world() if o["kind"] == "Namespace"]  # fmt: skip
    values.write_text(yaml.safe_dump({"apiVersion": "cli.kyverno.io/v1alpha1", "kind": "Values", "globalValues": {"request.operation": operation},
                                      "namespaceSelector": spaces}))  # fmt: skip
    found: dict[str, list[str]] = defaultdict(list)
    for number, case in enumerate(several):
        file = tmp_path / f"{operation}-{number}.yaml"
        file.write_text(json.dumps(case.subject))
        done = subprocess.run(["kubectl-kyverno", "apply", str(policies), "--resource", str(file), "-f", str(values), "--policy-report"],
                              capture_output=True, text=True, timeout=120)  # fmt: skip
        found[case.name] = re.findall(r"\(rule\s+([-a-z]+);", done.stdout)
        assert "error" not in done.stderr.lower(), done.stderr
    return found


@needs_kyverno
def test_kyverno_refuses_the_same_creations_by_the_same_rules(tmp_path: Path) -> None:
    """Its command line knows no object as it was before, so changes are left to the tests above."""
    several = [case for case in cases.CASES if case.operation == "CREATE"]
    found = _by_kyverno(tmp_path, "CREATE", several)

    assert {case.name: case.rule for case in several} == {name: rules[0] if rules else "" for name, rules in found.items()}
    assert {rule.name for rule in RULES} - {case.rule for case in several} == {"keeper-deleted", "keeper-changed", "injection-label", "discovery-label"}


@needs_kyverno
def test_kyverno_refuses_the_same_deletions(tmp_path: Path) -> None:
    several = [case for case in cases.CASES if case.operation == "DELETE"]
    found = _by_kyverno(tmp_path, "DELETE", several)

    assert {case.name: case.rule for case in several} == {name: rules[0] if rules else "" for name, rules in found.items()}
