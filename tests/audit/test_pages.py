"""The documentation of the audit agrees with its rules, and the catalogue is whole."""

from meshtls.audit.catalogue import BY_ID, ENTRIES, least_sure
from meshtls.audit.rules import RULES
from meshtls.model.check import Confidence
from tests.audit import pages

# how many entries each part of the catalogue has
COUNTS = {"PA": 23, "AM": 18, "DR": 12, "CL": 19, "IN": 15, "KP": 5, "WH": 7, "NC": 10, "LB": 4, "SF": 1, "TL": 1, "UD": 1, "EG": 1,
          "ST": 1, "CT": 1, "EF": 1, "SE": 11, "EV": 12, "PP": 21, "RB": 18}


def test_every_code_has_its_entry():
    assert (pages.DOCS / "findings.md").read_text() == pages.findings(), "run: python -m tests.audit.pages"


def test_every_entry_of_the_catalogue_is_dealt_with_somewhere():
    page = (pages.DOCS / "audit.md").read_text()

    assert page == pages.audit_page(page), "run: python -m tests.audit.pages"


def test_the_catalogue_is_whole():
    assert sorted(e.id for e in ENTRIES) == sorted(f"{part}-{n:02d}" for part, count in COUNTS.items() for n in range(1, count + 1))


def test_every_entry_is_covered_by_a_rule_or_says_who_deals_with_it_and_never_both():
    cited = {entry for rule in RULES for entry in rule.catalogue}

    assert cited <= BY_ID.keys()
    assert cited == {e.id for e in ENTRIES if not e.elsewhere}


def test_a_finding_is_as_sure_as_the_least_sure_entry_it_cites():
    assert least_sure(["AM-17"]) is Confidence.MEASURED
    assert least_sure(["WH-01", "PA-13"]) is Confidence.INFERRED
    assert least_sure(["WH-01", "WH-02"], Confidence.INFERRED) is Confidence.BELIEVED
    assert least_sure(["PA-01"], Confidence.BELIEVED) is Confidence.BELIEVED
