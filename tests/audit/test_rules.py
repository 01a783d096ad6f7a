"""Every rule finds what it is for, and stays silent where it should."""

import msgspec
import pytest

from meshtls import audit
from meshtls.model.check import Severity, Status
from tests.audit import cases

RULES = {rule.code: rule for rule in audit.RULES}
CASES = list(cases.everything())


@pytest.mark.parametrize(("code", "name", "case"), CASES, ids=[f"{code}-{name}" for code, name, _ in CASES])
def test_a_rule_finds_exactly_what_its_case_says(code, name, case):
    (check,) = audit.check(cases.mesh(case), rules=(RULES[code],))

    wanted = case.get("find", [])
    assert sorted({f.subject for f in check.findings}) == sorted(wanted), check
    if isinstance(wanted, dict):
        assert {f.subject: str(f.severity) for f in check.findings} == wanted
    for finding in check.findings:
        assert finding.message.strip() and finding.code == code
        assert set(finding.catalogue) <= set(RULES[code].catalogue)
        if finding.severity is not Severity.INFO:
            assert finding.fix, "a finding says what to do"


def test_every_rule_has_a_bad_case_a_good_one_and_one_that_stays_silent():
    by_code = {}
    for code, name, case in CASES:
        by_code.setdefault(code, {})[name] = bool(case.get("find"))

    assert sorted(by_code) == sorted(RULES)
    for code, names in by_code.items():
        assert names.get("bad") and names.get("good") is False and names.get("silent") is False, code


def test_codes_are_unique_and_in_order():
    codes = [rule.code for rule in audit.RULES]

    assert codes == sorted(set(codes))


def _kinds(case):
    """The kinds of a case's objects, the base's among them."""
    return {cases.kind_of(document) for document in cases.documents(cases.objects(case))}


def test_a_rule_declares_every_kind_that_it_depends_on():
    """Had a kind been forbidden whose objects matter to an answer, the rule must know that it depends on it."""
    undeclared = set()
    for code, _, case in CASES:
        rule = RULES[code]
        (whole,) = audit.check(cases.mesh(case), rules=(rule,))
        for kind in _kinds(case) - set(rule.inputs):
            (without,) = audit.check(cases.mesh(case, without=kind), rules=(rule,))
            if [f.subject for f in without.findings] != [f.subject for f in whole.findings if not f.subject.startswith(f"{kind}/")]:
                undeclared.add((code, kind))

    assert undeclared == set()


@pytest.mark.parametrize("kind", sorted({kind for rule in audit.RULES for kind in rule.inputs} - {"MeshConfig"}))
def test_no_rule_passes_without_a_kind_that_it_depends_on(kind):
    for code, name, case in CASES:
        if name not in ("good", "silent") or kind not in RULES[code].inputs:
            continue
        mesh = msgspec.structs.replace(cases.mesh(case, without=kind), absent={kind: "forbidden: may not list"}, live=True)
        (check,) = audit.check(mesh, rules=(RULES[code],))
        assert check.status is not Status.PASS, (code, name)
        if check.status is Status.SKIP:
            assert check.reason


def test_a_kind_that_could_not_be_read_is_never_a_pass():
    from meshtls.model.kinds import BY_KIND
    from meshtls.model.mesh import Mesh

    absent = {kind: "forbidden" for _, kind in BY_KIND}

    for check in audit.check(Mesh(live=True, absent=absent)):
        assert check.status is Status.SKIP or "MeshConfig" in RULES[check.id].about, check


PARTIAL = {
    "DestinationRule/shop/web": ("MT201", "the input holds no workload"),
    "Service/shop/web": ("MT214", "the input holds no workload"),
    "Deployment/shop/web": ("MT222", "whether namespace shop injects is unknown"),
    "ValidatingWebhookConfiguration/guard": ("MT230", "the input holds no workload"),
}


@pytest.mark.parametrize("ref", PARTIAL)
def test_a_part_of_the_manifests_is_no_pass(ref):
    code, reason = PARTIAL[ref]
    spec = {"DestinationRule": {"host": "web"}, "Service": {"selector": {"app": "web"}}, "Deployment": {"template": {"spec": {}}}}
    objects = {ref: {"spec": spec[ref.split("/")[0]]} if ref.split("/")[0] in spec else {"webhooks": []}}
    (check,) = audit.check(cases.mesh({"base": "none", "objects": objects}), rules=(RULES[code],))

    assert check.status is Status.SKIP and reason in check.reason


def test_a_webhook_whose_server_is_not_in_the_files_is_skipped_with_its_name():
    hook = {"name": "g.example.com", "clientConfig": {"service": {"name": "hook", "namespace": "guard"}}}
    case = {"objects": {"ValidatingWebhookConfiguration/guard": {"webhooks": [hook]}}}
    (check,) = audit.check(cases.mesh(case), rules=(RULES["MT230"],))

    assert check.status is Status.SKIP and "Service guard/hook" in check.reason


def test_the_modes_of_the_audit_are_those_of_the_engine_in_a_mesh_of_two_revisions():
    """A policy that another revision reads, and one in a namespace that istiod does not see, count for neither."""
    pod = {"containers": [{"name": "x"}]}
    case = {"objects": {
        "PeerAuthentication/shop/default": {"labels": {"istio.io/rev": "canary"}, "spec": {"mtls": {"mode": "STRICT"}}},
        "Namespace/next": {"labels": {"istio.io/rev": "canary"}},
        "PeerAuthentication/next/default": {"labels": {"istio.io/rev": "canary"}, "spec": {"mtls": {"mode": "STRICT"}}},
        "Deployment/next/api": {"spec": {"template": {"metadata": {"labels": {"app": "api"}}, "spec": pod}}},
        "MutatingWebhookConfiguration/injector": {"webhooks": [
            {"name": "rev.namespace.sidecar-injector.istio.io",
             "namespaceSelector": {"matchExpressions": [{"key": "istio.io/rev", "operator": "In", "values": ["canary"]}]}},
            {"name": "namespace.sidecar-injector.istio.io", "namespaceSelector": {"matchLabels": {"istio-injection": "enabled"}}}]},
    }}
    mesh = cases.mesh(case)
    from meshtls.audit.facts import Facts
    from meshtls.policy.server import modes

    facts = Facts(mesh)
    engine = {(m.namespace, m.workload): m.mode for m in modes(mesh)}
    assert engine["shop", "Deployment/web"] == "PERMISSIVE" and engine["next", "Deployment/api"] == "STRICT"
    assert {(w.namespace, w.label): facts.mode(w) for w in facts.in_mesh} == {k: v for k, v in engine.items() if v != "NONE"}
