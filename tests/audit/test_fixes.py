"""A fix that is a manifest mends what it is for: applied to the case, the finding is gone."""

import pytest
import yaml

from meshtls import audit
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


def test_most_kinds_of_trouble_have_a_manifest_that_mends_them():
    assert len({param.values[0] for param in _fixed()}) > 15
