"""Exceptions beyond today's: an owner, a reason and a day, and over when that day is over."""

import datetime
import re

import httpx
import msgspec
import pytest

from meshtls.errors import InputError
from meshtls.guard.achieved import achieved
from meshtls.guard.admission import EXCEPTIONS, admission
from meshtls.guard.exceptions import entries, over, with_granted
from meshtls.model.objects import DestinationRule
from meshtls.sources import load
from tests.guard import cases, judges
from tests.guard.test_admission_policy import client
from tests.lone_api import standalone

GOOD = {"rule": "host-network", "namespace": "shop", "subject": "DaemonSet/agent", "owner": "team-node", "reason": "reads the node", "expires": "2999-05-31"}
LONG_OVER = "2001-01-01"


@pytest.mark.parametrize(("change", "why"), [
    ({"owner": ""}, "lacks owner"), ({"reason": None}, "lacks reason"), ({"expires": None}, "lacks expires"), ({"expires": "soon"}, "is no day"),
    ({"rule": "hostnetwork"}, "is no rule"), ({"subject": "agent"}, "is no subject"), ({"more": "x"}, "is a mapping of")])  # fmt: skip
def test_an_exception_without_owner_reason_day_or_sense_is_none(change, why):
    with pytest.raises(InputError, match=why):
        entries([{**GOOD, **change}], "file")


def test_an_exception_counts_to_the_end_of_its_day():
    (one,) = entries({"exceptions": [{**GOOD, "expires": datetime.date(2027, 5, 31)}]}, "file")

    assert one.until == "2027-06-01T00:00:00Z"
    assert not over([one], datetime.date(2027, 5, 31)) and over([one], datetime.date(2027, 6, 1)) == [one]


def test_an_exception_in_a_namespace_that_is_not_kept_is_an_error():
    with pytest.raises(InputError, match="namespace free, which is not kept"):
        with_granted(cases.kept(), entries({**GOOD, "namespace": "free"}, "file"))


def test_words_of_a_flaw_are_not_taken_for_who_it_is_of():
    (one,) = entries({**GOOD, "rule": "client-tls", "subject": "DestinationRule/free/new"}, "file")

    assert re.match(one.pattern, "client-tls DISABLE DestinationRule/free/new cart.shop.svc.cluster.local")
    assert not re.match(one.pattern, "client-tls subset x DestinationRule/free/new y DISABLE DestinationRule/free/other cart.shop.svc.cluster.local")


def test_what_stands_today_is_excepted_by_its_own_name_and_not_by_what_that_says_as_an_expression():
    mesh = load([str(cases.WORLD)])
    wide = msgspec.convert(cases.rule("[c-l].*.shop.svc.cluster.local", cases.DISABLE, name="wide"), DestinationRule)
    kept, _ = achieved(msgspec.structs.replace(mesh, destination_rules=(*mesh.destination_rules, wide)))
    (excepted,) = [one for each in kept if each.namespace == "shop" for one in each.excepted if "/wide" in one]

    assert re.match(excepted, "client-tls DISABLE DestinationRule/free/wide [c-l].*.shop.svc.cluster.local")
    assert not re.match(excepted, "client-tls DISABLE DestinationRule/free/wide cart.shop.svc.cluster.local")


GRANTS = (
    {"rule": "host-network", "subject": "DaemonSet/agent"},
    {"rule": "no-sidecar", "subject": "DaemonSet/agent"},
    {"rule": "excluded-port", "value": "8080", "subject": "Deployment/new"},
    {"rule": "client-tls", "subject": "DestinationRule/free/new"},
    {"rule": "port-mode", "subject": "PeerAuthentication/new"},
    {"rule": "workload-mode", "subject": "PeerAuthentication/old"},
)
# (name, rule that refuses once the exception is over, case)
ASKED = (
    cases.create("the object on the host's network", "host-network", cases.deployment(name="agent", kind="DaemonSet", hostNetwork=True)),
    cases.create("its pod", "no-sidecar", cases.pod(bare=True, name="agent-x", owner=("DaemonSet", "agent"), hostNetwork=True)),
    cases.create("the port", "excluded-port", cases.deployment(None, {cases.EXCLUDE: "8080"})),
    cases.create("the rule", "client-tls", cases.rule(cases.CART, cases.DISABLE)),
    cases.create("the policy", "port-mode", cases.policy("STRICT", {"80": "PERMISSIVE"}, {"app": "cart"})),
    cases.update("a policy that is changed", "workload-mode", cases.existing("PeerAuthentication", "old"), {"spec": {"mtls": {"mode": "DISABLE"}}}),
)


@pytest.fixture(scope="module", params=["2999-05-31", LONG_OVER])
def asked(request):
    """(whether the exceptions hold, an API guarded with them)."""
    granted = entries([{**GOOD, **grant, "expires": request.param} for grant in GRANTS], "file")
    with standalone() as running, client(running) as http:
        judges.fill(http, admission(with_granted(cases.kept(), granted)))
        yield request.param != LONG_OVER, http


@pytest.mark.parametrize("case", ASKED, ids=lambda case: case.name)
def test_an_exception_lets_through_until_its_time_is_over(asked: tuple[bool, httpx.Client], case: cases.Case):
    """The engine has no clock: the times that the API server writes into the object decide."""
    holds, http = asked

    answer = judges.refused_by(judges.ask(http, case))
    assert (answer == "") if holds else (answer == case.rule or (case.name == "its pod" and answer == "host-network"))


def test_an_exception_lets_through_nothing_else(asked: tuple[bool, httpx.Client]):
    _, http = asked
    other_port = cases.create("", "excluded-port", cases.deployment(None, {cases.EXCLUDE: "8080,8081"}))
    other_name = cases.create("", "host-network", cases.deployment(name="agent2", kind="DaemonSet", hostNetwork=True))

    assert [judges.refused_by(judges.ask(http, case)) for case in (other_port, other_name)] == ["excluded-port", "host-network"]


def test_what_is_not_changed_is_not_judged_again(asked: tuple[bool, httpx.Client]):
    """Else controllers could no longer touch what an exception that is over has let in."""
    _, http = asked
    scaled = cases.update("", "", cases.existing("Deployment", "legacy"), {"metadata": {"labels": {"team": "x"}}})

    assert judges.refused_by(judges.ask(http, scaled)) == ""


def test_who_answers_for_it_is_written_on_the_manifest():
    made = admission(with_granted(cases.kept(), entries(GOOD, "file")))
    noted = {m["metadata"]["name"]: m["metadata"]["annotations"][EXCEPTIONS] for m in made if "annotations" in m["metadata"]}

    assert set(noted) == {f"meshtls-guard-shop-{target}" for target in ("pods", "workloads", "cronjobs")}
    assert all("team-node" in text and "2999-06-01" in text for text in noted.values())
