"""How bad an entry of the catalogue is: what breaks is an error, what needs evidence or makes STRICT cosmetic a warning."""

import pytest

from meshtls import audit
from tests.audit import cases

# entries that will break traffic, or the way back: somewhere an error or worse
BREAKS = ("CL-01", "CL-02", "CL-03", "CL-04", "CL-05", "CL-08", "CL-09", "CL-10", "DR-01", "DR-02", "DR-03", "DR-04", "DR-11", "WH-01", "WH-02",
          "WH-03", "WH-06", "KP-02", "KP-03", "LB-02", "LB-03", "NC-02", "NC-03", "NC-08", "AM-09", "PA-20", "TL-01", "RB-06", "RB-08")
# likely, or in need of evidence; and those that leave STRICT without effect: somewhere a warning, nowhere silent
WARNS = ("NC-01", "NC-04", "NC-05", "NC-06", "NC-07", "CL-07", "CL-11", "CL-12", "CL-13", "CL-16", "CL-15", "LB-01", "ST-01", "SF-01", "PA-10",
         "PA-14", "PA-15", "PA-16", "IN-08", "EV-01", "EV-04", "AM-08", "RB-03", "PA-01", "PA-02", "PA-06", "PA-12", "PA-17", "PA-18", "IN-01", "IN-02",
         "IN-03", "IN-04", "IN-09", "IN-10", "IN-11", "IN-12", "IN-13", "IN-14", "SE-06", "SE-09", "UD-01", "AM-01", "AM-02", "AM-03", "AM-10", "AM-11")
INFO = ("PA-09",)
# entries that are warnings unless something is known that they break: never an error by themselves
NEVER_WORSE = ("CL-07", "CL-11", "CL-15", "CL-16", "NC-05", "NC-06", "NC-07", "LB-01", "ST-01", "SF-01", "PA-10", "PA-14", "PA-15", "PA-16",
               "IN-01", "IN-02", "IN-03", "IN-04", "IN-08", "IN-09", "IN-10", "IN-14", "SE-06", "SE-09", "UD-01", "AM-01", "AM-02", "AM-10", "AM-11",
               "PA-01", "PA-02", "PA-12", "PA-17", "PA-18")
CRITICAL = {"AM-17", "AM-18", "WH-06", "CL-01"}


@pytest.fixture(scope="module")
def seen():
    """Entry -> the severities with which findings cite it, over all cases."""
    rules, found = {rule.code: rule for rule in audit.RULES}, {}
    for code, _, case in cases.everything():
        for check in audit.check(cases.mesh(case), rules=(rules[code],)):
            for finding in check.findings:
                for entry in finding.catalogue:
                    found.setdefault(entry, set()).add(str(finding.severity))
    return found


def test_what_breaks_is_an_error(seen):
    assert [entry for entry in BREAKS if not {"error", "critical"} & seen[entry]] == []


def test_what_needs_evidence_or_is_cosmetic_is_a_warning(seen):
    assert [entry for entry in WARNS if "warning" not in seen[entry]] == []
    assert [entry for entry in NEVER_WORSE if {"error", "critical"} & seen[entry]] == []


def test_what_is_good_to_know_is_information(seen):
    assert [entry for entry in INFO if seen[entry] != {"info"}] == []


def test_what_fails_open_or_locks_out_is_critical(seen):
    assert {entry for entry in CRITICAL if "critical" in seen[entry]} == CRITICAL
    assert seen["AM-17"] == seen["AM-18"] == {"critical"}


def test_every_entry_that_a_rule_covers_is_cited_by_a_finding_of_a_case(seen):
    covered = {entry for rule in audit.RULES for entry in rule.catalogue}
    assert covered - seen.keys() == set()
