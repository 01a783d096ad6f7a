"""The documentation of the audit agrees with its rules."""

from tests.audit import pages


def test_every_code_has_its_entry():
    assert (pages.DOCS / "findings.md").read_text() == pages.findings(), "run: python -m tests.audit.pages"


def test_every_entry_of_the_catalogue_is_dealt_with_somewhere():
    page = (pages.DOCS / "audit.md").read_text()

    assert page == pages.audit_page(page), "run: python -m tests.audit.pages"


def test_rules_cite_entries_that_exist_and_none_is_also_explained_away():
    cited = {entry for rule in pages.RULES for entry in rule.catalogue}

    assert cited <= set(pages.CATALOGUE)
    assert not cited & set(pages.ELSEWHERE)
