"""What is known of the time before a run, or before its rollback: from the proxies' logs, and a Prometheus where there is one."""

import datetime
from collections.abc import Collection
from typing import TYPE_CHECKING

import msgspec

from meshtls.audit.facts import Facts
from meshtls.audit.rules import raw_mtls_client
from meshtls.cli.counting import counted
from meshtls.cli.witness import FOREIGN
from meshtls.cluster.client import Client
from meshtls.cluster.owned import timestamp
from meshtls.errors import MeshtlsError
from meshtls.migrate.blockers import Seen
from meshtls.migrate.exceptions import Doors
from meshtls.migrate.plan import Arrivals
from meshtls.migrate.raw import Raw
from meshtls.model.check import Check, Severity, Status
from meshtls.model.mesh import Mesh
from meshtls.observe import run as observing
from meshtls.observe.accesslog import Verdict
from meshtls.observe.senders import Group, finding
from meshtls.policy.change import strict

if TYPE_CHECKING:
    from meshtls.observe.prometheus import Prometheus


class Before(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the time before a run: checks of the logs or why there are none, what was counted and how far that
    reaches ("" where nobody was asked), arrivals by workload, who STRICT would refuse, and the namespaces that call this one."""

    observed: tuple[Check, ...] = ()
    unobserved: str = ""
    counted: tuple[Check, ...] = ()
    reach: str = ""
    arrivals: dict[str, Arrivals] = {}
    seen: tuple[Seen, ...] = ()
    callers: frozenset[str] = frozenset()


def baseline(client: Client, mesh: Mesh, namespace: str, since_s: float, prometheus: "Prometheus | None" = None) -> Before:
    """What logs, and a Prometheus where there is one, say of the last `since_s` seconds."""
    found: tuple[Check, ...] = ()
    unobserved, group = "", None
    try:
        heard = observing.start(mesh, [namespace])
        since = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=since_s)
        observing.read(client, heard, timestamp(since))
        group = heard.group
        found = observing.checks(heard, mesh, [namespace])
    except MeshtlsError as error:
        unobserved = str(error)
    counts, reach = counted(prometheus, mesh, [namespace], since_s, group.senders if group else ()) if prometheus else ((), "")
    doors = Doors(strict(mesh, [namespace]))
    theirs = [s for s in (group.senders if group else ()) if not s.client.own and s.server.split("/")[1:2] == [namespace]]
    seen = tuple(
        Seen(client=str(s.client), ref=s.client.ref, server=s.server, port=s.port, says=told.message)
        for s in theirs if s.verdict in FOREIGN and not doors.open(s.server, s.port) and (told := finding(s)) is not None
    )  # fmt: skip
    found = kept_open(found, {told.message for s in theirs if doors.open(s.server, s.port) and (told := finding(s)) is not None})
    callers = frozenset(s.client.ref.split("/")[1] for s in theirs if s.client.ref.count("/") == 2)
    return Before(observed=found, unobserved=unobserved, counted=counts, reach=reach, seen=seen, callers=callers,
                  arrivals={} if unobserved or not group else arrivals(group))  # fmt: skip


def kept_open(checks: tuple[Check, ...], messages: Collection[str]) -> tuple[Check, ...]:
    """The checks with these findings mentioned only: they are about ports that take plaintext under STRICT too, by an exception."""
    result = []
    for check in checks:
        findings = tuple(
            msgspec.structs.replace(f, severity=Severity.INFO, message=f"{f.message}; this port stays open to it", fix="")
            if f.message in messages and f.severity.rank <= Severity.ERROR.rank else f for f in check.findings
        )  # fmt: skip
        bad = any(f.severity.rank <= Severity.ERROR.rank for f in findings)
        status = Status.PASS if check.status is Status.FAIL and not bad else check.status
        result.append(msgspec.structs.replace(check, findings=findings, status=status))
    return tuple(result)


def raw_clients(client: Client, mesh: Mesh, namespace: str, since_s: float) -> tuple[tuple[Raw, ...], tuple[str, ...]]:
    """Who came in the last `since_s` seconds over TLS of its own, by the logs; and monitors that name a certificate of the mesh."""
    heard = observing.start(mesh, [namespace])
    observing.read(client, heard, timestamp(datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=since_s)))
    seen = tuple(
        Raw(client=str(s.client), ref=s.client.ref, server=s.server, port=s.port, count=s.raw, last=s.last)
        for s in heard.group.senders if s.raw and not s.client.own
    )  # fmt: skip
    return seen, tuple(dict.fromkeys(flaw.subject for flaw in raw_mtls_client.find(Facts(mesh))))


def arrivals(group: Group) -> dict[str, Arrivals]:
    """How many arrivals of each workload were over mTLS and by what STRICT refuses, our own probes left out."""
    found: dict[str, Arrivals] = {}
    for sender in group.senders:
        if sender.client.own:
            continue
        so_far = found.get(sender.server, Arrivals())
        found[sender.server] = Arrivals(
            so_far.mtls + (sender.count if sender.verdict is Verdict.MTLS else 0),
            so_far.plaintext + (sender.count if sender.verdict in FOREIGN else 0),
        )
    return found
