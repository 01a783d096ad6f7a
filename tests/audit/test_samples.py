"""No false alarm on manifests as common charts write them: alone, and beside a well-kept mesh."""

from pathlib import Path

import pytest

from meshtls import audit, sources
from meshtls.model.check import Severity

SAMPLES = Path(__file__).parent / "samples"
CHARTS = sorted(p.name for p in SAMPLES.glob("*.yaml"))

# what is true of these manifests, and would be of any cluster like them
EXPECTED = {
    "Namespace/monitoring": {"MT242"}, "Namespace/cert-manager": {"MT242"}, "Namespace/kafka": {"MT242"}, "Namespace/ingress-nginx": {"MT242"},
    "DaemonSet/monitoring/node-exporter": {"MT243"},
}


def _found(*names):
    mesh = sources.load([str(SAMPLES / name) for name in names])
    return [f for check in audit.check(mesh) for f in check.findings if f.severity.rank <= Severity.WARNING.rank]


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_by_itself_raises_nothing(name):
    assert _found(name) == []


def test_all_together_raise_only_what_is_true_of_workloads_outside_the_mesh():
    assert {(f.subject, f.code) for f in _found(*CHARTS)} == {(subject, code) for subject, codes in EXPECTED.items() for code in codes}
