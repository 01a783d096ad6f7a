"""The traps that were met on a real mesh are found before the switch; the two that fail open are of the highest severity."""

from pathlib import Path

import pytest
import yaml

from meshtls import audit
from meshtls.audit.facts import Facts
from meshtls.model.check import Confidence
from meshtls.policy.server import modes
from tests.audit import cases

TRAPS = yaml.safe_load((Path(__file__).parent / "traps.yaml").read_text())


@pytest.mark.parametrize("name", TRAPS)
def test_a_trap_is_found(name):
    found = {(f.code, f.subject, str(f.severity)): f for check in audit.check(cases.mesh(TRAPS[name])) for f in check.findings}

    for wanted in TRAPS[name]["find"]:
        finding = found.get(tuple(wanted))
        assert finding is not None, sorted(found)
        if finding.code not in ("MT202", "MT234", "MT102", "MT115"):  # read in source, or reported; the rest was seen on the wire
            assert finding.confidence is Confidence.MEASURED


def test_the_audit_and_the_engine_agree_on_what_fails_open():
    """Where a rule says that an ambient workload fails open, `modes` says PERMISSIVE and why; and nowhere else."""
    for name, trap in TRAPS.items():
        mesh = cases.mesh(trap)
        facts = Facts(mesh)
        missing = {w.ref for w in facts.ambient if facts.effective(w).missing}
        said = {f"{m.workload.split('/')[0]}/{m.namespace}/{m.workload.split('/')[1]}" for m in modes(mesh)
                if any("which istiod never makes" in b.says for b in m.because)}
        codes = {f.code for c in audit.check(mesh) for f in c.findings} & {"MT121", "MT122"}
        assert missing == said and bool(codes) == bool(missing), name
