"""The hand of the shadow of STRICT: put the dry run there, read its counters through a Prometheus, take it away whatever happens."""

import time
from collections.abc import Callable, Iterable
from typing import Any

from meshtls.cluster.client import Client
from meshtls.cluster.owned import Owned, Run, stamp
from meshtls.errors import ClusterError, InputError, NotFound, ServerFault
from meshtls.observe import shadow
from meshtls.observe.counted import Proxied
from meshtls.observe.metrics import Query
from meshtls.observe.prometheus import Prometheus
from meshtls.observe.shadow import Tally

EVERY_S = 5.0


def tried(client: Client, run: Run, namespace: str, labels: dict[str, str]) -> None:
    """Ask the server what it would make of the policy. Raises ClusterError, and InputError where it would not be a dry run."""
    try:
        answer = client.create(stamp(shadow.policy(_name(run), namespace, labels), run), dry_run=True)
    except NotFound as error:
        raise InputError("the cluster has no AuthorizationPolicy of security.istio.io/v1, so its Istio may not know dry runs",
                         "Istio 1.22 and newer serve it") from error  # fmt: skip
    if problem := shadow.altered(answer):
        raise InputError(f"not tried: {problem}", "nothing was changed")


def watch(
    client: Client, prometheus: Prometheus, run: Run, namespace: str, labels: dict[str, str], workloads: Iterable[Proxied], for_s: float,
    tally: Tally, left: list[str], say: Callable[[str], None],
) -> None:  # fmt: skip
    """Count for `for_s` seconds, and once more at the end. `tally` has what was counted also if this is interrupted; `left` is
    told what could not be removed. Who does not answer meanwhile is asked again; raises the last error at the end, and at once
    where the policy is gone or no dry run any more."""
    asked = shadow.queries(workloads)
    tally.take(_read(prometheus, asked), first=True)
    owned = Owned(client, run)
    try:
        with owned:
            _sound(owned.create(shadow.policy(_name(run), namespace, labels)))
            say(f"{namespace}: counting for {for_s:g} s; the policy {_name(run)} goes when this ends")
            until = time.monotonic() + for_s
            failed: ClusterError | None = None
            while True:
                time.sleep(max(0.0, min(EVERY_S, until - time.monotonic())))
                failed = _once(client, prometheus, asked, tally, (_name(run), namespace), say, failed)
                if time.monotonic() >= until:
                    break
            if failed is not None:
                raise failed
    finally:
        left += owned.left


def _once(
    client: Client, prometheus: Prometheus, asked: tuple[Query, ...], tally: Tally, named: tuple[str, str], say: Callable[[str], None],
    before: ClusterError | None,
) -> ClusterError | None:
    """One reading, and a look at the policy; the error of who did not answer. Raises ClusterError where the policy is not as it was."""
    problem: ClusterError | None = None
    try:
        tally.take(_read(prometheus, asked))
    except ClusterError as error:
        problem = error
    try:
        now = client.get(shadow.KIND, *named)
    except NotFound as error:
        raise ClusterError("somebody has removed the policy meanwhile", "what was counted until then is below") from error
    except ClusterError as error:
        problem = error
    else:
        _sound(now)
    if problem is not None and before is None:
        say(f"{problem.message}; asking again")
    return problem


def _read(prometheus: Prometheus, asked: tuple[Query, ...]) -> list[tuple[dict[str, str], float]]:
    """All values. Raises ServerFault where parts of an answer are missing: a counter that is not shown would read as none."""
    answers = [prometheus.at(query, None) for query in asked]
    if missing := next((answer.incomplete for answer in answers if answer.incomplete), ""):
        raise ServerFault(f"the answer is incomplete: {missing}", "run again when it is whole")
    return [value for answer in answers for value in answer.values]


def _sound(policy: dict[str, Any]) -> None:
    if problem := shadow.altered(policy):
        raise ClusterError(f"taken away at once: {problem}", "look whether anybody was refused")


def _name(run: Run) -> str:
    return f"meshtls-shadow-{run.id}"
