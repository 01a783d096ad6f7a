"""`meshtls observe`: name the clients that still send plaintext, from the access logs of the proxies and from their metrics."""

import contextlib
import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from meshtls.cli.options import Duration, Options, shared
from meshtls.cli.output import Draft, say, session
from meshtls.errors import DeadlineError, NoData
from meshtls.model.check import Check, Status

if TYPE_CHECKING:
    from meshtls.model.mesh import Mesh
    from meshtls.observe.run import Heard

# of the time that an interrupt leaves
AT_THE_END_S = 8.0


@click.command()
@shared("cluster", "scope", "output", "report", "timeout", "threshold", "accept", "prometheus")
@click.option("--since", type=Duration(), default="1h", show_default=True, help="How far back logs are read and metrics looked at.")
@click.option("--follow", "-f", is_flag=True, help="Then keep listening, and say each new sender as it is heard.")
@click.option("--for", "for_s", type=Duration(), metavar="DURATION", help="Listen for this long (implies --follow).")
def observe(options: Options, since: float, follow: bool, for_s: float | None) -> None:
    """Name the clients that still send plaintext.

    Reads the access logs of all istio-proxy containers of the namespaces (and of ztunnel where pods are ambient), and
    says who arrived in plaintext, who was refused, and who brought TLS of their own. With --prometheus also what the
    proxies counted, which needs no access log, is kept for longer, and rarely names the client.

    Exit codes: 0 everything logged and counted was mTLS, 1 plaintext or TLS of their own found, 3 nothing was logged or
    counted, or it could not be read.
    """
    from meshtls import sources
    from meshtls.cli.counting import asking, counted
    from meshtls.cli.meshes import chosen, connect, exists
    from meshtls.cluster.owned import timestamp
    from meshtls.observe import run
    from meshtls.observe.senders import Sender, finding

    with (
        session(options, kind="ObserveReport", title="Who sends plaintext") as draft, asking(options) as prometheus,
        connect(options) as client,
    ):  # fmt: skip
        mesh = sources.load(client=client)
        if draft.accepting:
            draft.accepting.annotated(mesh)
        names = sorted({pod.namespace for pod in mesh.pods}) if options.all_namespaces else (
            options.namespaces or (client.namespace,)
        )
        for name in names:
            exists(client, name)
        refs = chosen(options, mesh)
        heard = run.start(mesh, names)
        began = datetime.datetime.now(datetime.UTC)
        since_time = timestamp(began - datetime.timedelta(seconds=since))

        said: set[tuple[str, str, int, str]] = set()

        def tell(sender: Sender) -> None:
            key = (sender.client.ref or sender.client.address, sender.server, sender.port, sender.verdict)
            if key not in said and (refs is None or sender.server in refs) and (found := finding(sender)):
                said.add(key)
                say(f"{sender.last}  {found.message}")

        def count() -> None:
            if prometheus is None:
                return
            lasted = datetime.datetime.now(datetime.UTC) - began
            found, reach = counted(prometheus, mesh, names, since + lasted.total_seconds(), heard.group.senders)
            draft.facts.append(("metrics", reach))
            draft.checks += [check for check in found if refs is None or check.id in ("metrics", *(f"metrics/{ref}" for ref in refs))]

        draft.facts += [
            ("namespaces", ", ".join(names)), ("proxies", str(len(heard.proxies))), ("since", since_time),
            ("not visible", run.OPEN_CONNECTIONS),
        ]
        try:
            if follow or for_s is not None:
                run.follow(client, heard, since_time, for_s, tell)
            else:
                run.read(client, heard, since_time)
        except (KeyboardInterrupt, DeadlineError):
            # what was heard until then is told; that it may be nothing is not what ended it
            with contextlib.suppress(NoData):
                _told(draft, heard, mesh, names, refs)
            if prometheus:
                prometheus.hurry(AT_THE_END_S)
                count()
            raise
        try:
            _told(draft, heard, mesh, names, refs)
        except NoData as silent:
            if prometheus is None:
                raise
            draft.checks.append(Check(id="observe/logs", title="the logs name who sends plaintext", status=Status.SKIP, group="observed plaintext",
                                      reason=f"{silent.message}; the metrics name few clients"))  # fmt: skip
        count()


def _told(draft: Draft, heard: "Heard", mesh: "Mesh", names: Sequence[str], refs: "frozenset[str] | None") -> None:
    """What was heard, as checks of the workloads that were meant. Raises NoData."""
    from meshtls.observe import run

    draft.facts.append(("logs", f"{len(heard.talkers)} of {len(heard.proxies)} proxies wrote of arrivals or calls, {len(heard.deaf)} could not be read"))
    draft.facts.append(("lines read", str(heard.lines)))
    found = run.checks(heard, mesh, names)
    draft.checks += [check for check in found if refs is None or check.id.removeprefix("observe/") in refs]
