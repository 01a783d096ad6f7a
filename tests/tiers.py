"""Tiers of tests, and an honest account of them: which ran, which were skipped and why.

A pytest plugin (`-p tiers`). The default tier has no marker; `lab`, `browser`, `prometheus` and `cluster` are markers. With
MESHTLS_REQUIRE_TIERS="lab,browser" a run in which one of these has no passed test, or skipped one, fails.
"""

import collections
import contextlib
import os
import platform

import pytest

from meshtls.errors import LabError
from meshtls.lab import addresses
from meshtls.lab.node import images

LABS = 3
# a test with two of these markers is of the first
TIERS = ("default", "browser", "prometheus", "lab", "cluster")


class Tiers:
    def __init__(self) -> None:
        self.tier: dict[str, str] = {}
        self.outcomes: dict[str, collections.Counter[str]] = {tier: collections.Counter() for tier in TIERS}
        self.reasons: dict[str, collections.Counter[str]] = {tier: collections.Counter() for tier in TIERS}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            self.tier[item.nodeid] = next((t for t in TIERS[1:] if item.get_closest_marker(t)), "default")
        in_a_lab = [item for item in items if item.get_closest_marker("lab")]
        why = no_lab() if in_a_lab else ""
        for item in in_a_lab if why else ():
            item.add_marker(pytest.mark.skip(reason=why))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        tier = self.tier.get(report.nodeid, "default")
        if report.when == "call" and not report.skipped:
            self.outcomes[tier][report.outcome] += 1
        elif report.failed:
            self.outcomes[tier]["failed"] += 1
        elif report.skipped:
            self.outcomes[tier]["skipped"] += 1
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.reasons[tier][reason.removeprefix("Skipped: ")] += 1

    def missing(self) -> list[str]:
        """The required tiers that did not run whole, each with why."""
        out = []
        for tier in filter(None, os.environ.get("MESHTLS_REQUIRE_TIERS", "").split(",")):
            if not self.outcomes[tier]["passed"] or self.outcomes[tier]["skipped"]:
                why = "; ".join(self.reasons[tier]) or "no test of it was run"
                out.append(f"tier {tier} is required here and did not run whole: {why}")
        return out

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("tiers")
        for tier in TIERS:
            counts = self.outcomes[tier]
            said = ", ".join(f"{n} {outcome}" for outcome, n in sorted(counts.items())) or "no tests"
            terminalreporter.write_line(f"{tier}: {said}")
            for reason, n in self.reasons[tier].most_common(5):
                terminalreporter.write_line(f"    skipped {n}: {reason}")
        for line in self.missing():
            terminalreporter.write_line(line, red=True)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.missing() and session.exitstatus == 0:
            session.exitstatus = 1


def no_lab() -> str:
    """Why this system cannot have as many labs as some tests have at once, not even in loopback mode; "" where it can."""
    with contextlib.ExitStack() as held:
        try:
            images.envoy()
            for _ in range(LABS):
                held.enter_context(addresses.claim().line)
        except LabError as error:
            return f"{platform.system().replace('Darwin', 'macOS')}: {error}"
    return ""


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Tiers(), "meshtls-tiers")
