"""A fix that is a manifest mends what it is for: applied to the case, the finding is gone."""

import pytest
import yaml

from meshtls import audit
from meshtls.audit.facts import Facts
from meshtls.model.check import Severity
from meshtls.sources.build import laid_over
from meshtls.sources.document import Document
from tests.audit import cases

RULES = {rule.code: rule for rule in audit.RULES}


def manifest(text):
    """The manifest in a fix, without what is said before and after it; None for none, or for one with a blank to fill in."""
    if "apiVersion:" not in text:
        return None
    lines = text[text.index("apiVersion:"):].splitlines()
    while lines:
        try:
            body = yaml.safe_load("\n".join(lines))
        except yaml.YAMLError:
            body = None
        if isinstance(body, dict) and {"kind", "metadata"} <= body.keys():
            return None if body["metadata"].get("namespace") == "NAMESPACE" else body
        lines.pop()
    return None


def _fixed():
    for code, name, case in cases.everything():
        for check in audit.check(cases.mesh(case), rules=(RULES[code],)):
            for finding in check.findings:
                body = manifest(finding.fix)
                if body is not None:
                    yield pytest.param(code, case, finding, body, id=f"{code}-{name}-{finding.subject}")


@pytest.mark.parametrize(("code", "case", "finding", "body"), list(_fixed()))
def test_what_a_fix_mends_is_not_found_again(code, case, finding, body):
    spec = body["spec"]
    assert "portLevelMtls" not in spec or spec.get("selector"), "the API server refuses port modes without a selector"
    mesh = laid_over(cases.mesh(case), [Document(body["apiVersion"], body["kind"], body)], lambda _: "")
    (check,) = audit.check(mesh, rules=(RULES[code],))

    left = [f for f in check.findings if (f.subject, f.path) == (finding.subject, finding.path) and f.message == finding.message]
    assert left == [], finding.fix


def _bad(mesh):
    return {(f.code, f.subject) for check in audit.check(mesh) for f in check.findings if f.severity in (Severity.CRITICAL, Severity.ERROR)}


@pytest.mark.parametrize(("code", "case", "finding", "body"), list(_fixed()))
def test_a_fix_makes_nothing_worse(code, case, finding, body):
    before = cases.mesh(case)
    after = laid_over(before, [Document(body["apiVersion"], body["kind"], body)], lambda _: "")

    assert _bad(after) - _bad(before) == set(), finding.fix


def test_an_exception_for_a_captured_workload_does_not_open_its_other_ports():
    """Under a STRICT mesh, with an empty policy in the namespace, a port exception without a mode would open every port."""
    case = {"objects": {
        "Namespace/amb": {"labels": {"istio.io/dataplane-mode": "ambient"}},
        "Deployment/amb/api": {"spec": {"selector": {"matchLabels": {"app": "api"}}, "template": {
            "metadata": {"labels": {"app": "api"}}, "spec": {"containers": [{"name": "app", "ports": [{"containerPort": 8080}, {"containerPort": 9000}]}]}}}},
        "Service/amb/api": {"spec": {"type": "NodePort", "selector": {"app": "api"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}},
        "PeerAuthentication/istio-system/default": {"spec": {"mtls": {"mode": "STRICT"}}}, "PeerAuthentication/amb/default": {"spec": {}}}}
    mesh = cases.mesh(case)
    (check,) = audit.check(mesh, rules=(RULES["MT260"],))
    body = manifest(check.findings[0].fix)
    facts = Facts(laid_over(mesh, [Document(body["apiVersion"], body["kind"], body)], lambda _: ""))
    (w,) = facts.ambient

    assert (facts.mode(w, 8080), facts.mode(w, 9000)) == ("PERMISSIVE", "STRICT")


def test_most_kinds_of_trouble_have_a_manifest_that_mends_them():
    assert len({param.values[0] for param in _fixed()}) > 15
