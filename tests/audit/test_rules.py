"""Every rule finds what it is for, and stays silent where it should."""

import pytest

from meshtls import audit
from meshtls.model.check import Severity, Status
from tests.audit import cases

RULES = {rule.code: rule for rule in audit.RULES}
CASES = list(cases.everything())


@pytest.mark.parametrize(("code", "name", "case"), CASES, ids=[f"{code}-{name}" for code, name, _ in CASES])
def test_a_rule_finds_exactly_what_its_case_says(code, name, case):
    (check,) = audit.check(cases.mesh(case), rules=(RULES[code],))

    assert sorted({f.subject for f in check.findings}) == sorted(case.get("find", [])), check
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


def test_a_kind_that_could_not_be_read_is_never_a_pass():
    from meshtls.model.kinds import BY_KIND
    from meshtls.model.mesh import Mesh

    absent = {kind: "forbidden" for _, kind in BY_KIND}

    for check in audit.check(Mesh(live=True, absent=absent)):
        assert check.status is Status.SKIP or "MeshConfig" in RULES[check.id].about, check
