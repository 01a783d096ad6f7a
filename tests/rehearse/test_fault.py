"""Faults: what each must show."""

import pytest

from meshtls.model.check import Status
from meshtls.rehearse.fault import KINDS, Fault, withstood


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("code", "restored", "status"), [(4, True, Status.PASS), (3, True, Status.PASS), (4, False, Status.FAIL)])
def test_whoever_goes_back_must_have_restored_everything(kind, code, restored, status):
    assert withstood(Fault(kind, 3.0), code, restored).status is status


@pytest.mark.parametrize(("kind", "status"), [("stuck-proxy", Status.FAIL), ("slow-control-plane", Status.PASS), ("api-503", Status.PASS)])
def test_only_a_proxy_that_never_hears_of_the_change_forbids_to_go_through(kind, status):
    assert withstood(Fault(kind), 0, True).status is status
