"""`meshtls observe`: name the clients that still send plaintext, from the access logs of the proxies."""

import datetime

import click

from meshtls.cli.options import Duration, Options, shared
from meshtls.cli.output import session


@click.command()
@shared("cluster", "scope", "output", "report", "timeout", "threshold")
@click.option("--since", type=Duration(), default="1h", show_default=True, help="How far back the logs are read.")
@click.option("--follow", "-f", is_flag=True, help="Then keep listening, and say each new sender as it is heard.")
@click.option("--for", "for_s", type=Duration(), metavar="DURATION", help="Listen for this long (implies --follow).")
def observe(options: Options, since: float, follow: bool, for_s: float | None) -> None:
    """Name the clients that still send plaintext.

    Reads the access logs of all istio-proxy containers of the namespaces (and of ztunnel where pods are ambient), and
    says who arrived in plaintext, who was refused, and who brought TLS of their own.

    Exit codes: 0 everything logged was mTLS, 1 plaintext found, 3 nothing was logged or logs could not be read.
    """
    from meshtls import sources
    from meshtls.cluster.client import Client
    from meshtls.errors import NotFound
    from meshtls.model.mesh import Mesh
    from meshtls.observe import run
    from meshtls.observe.senders import Sender, finding

    with session(options, kind="ObserveReport", title="Who sends plaintext") as draft:
        with Client.connect(options.kubeconfig, options.context) as client:
            mesh: Mesh = sources.load(client=client)
            names = sorted({pod.namespace for pod in mesh.pods}) if options.all_namespaces else (
                options.namespaces or (client.namespace,)
            )
            for name in names:
                if mesh.namespace_labels and name not in mesh.namespace_labels:
                    raise NotFound(f"namespace {name} does not exist", "check the name and the context")
            heard = run.start(mesh, names)
            began = datetime.datetime.now(datetime.UTC)
            since_time = _rfc3339(began - datetime.timedelta(seconds=since))

            said: set[tuple[str, str, int, str]] = set()

            def tell(sender: Sender) -> None:
                key = (sender.client.ref or sender.client.address, sender.server, sender.port, sender.verdict)
                if key not in said and (found := finding(sender)):
                    said.add(key)
                    click.echo(f"{sender.last}  {found.message}", err=True)

            draft.facts += [
                ("namespaces", ", ".join(names)), ("proxies", str(len(heard.proxies))), ("since", since_time),
                ("not visible", run.OPEN_CONNECTIONS),
            ]
            try:
                if follow or for_s is not None:
                    run.follow(client, heard, since_time, for_s, tell)
                else:
                    run.read(client, heard, since_time)
            finally:
                draft.facts.append(("lines read", str(heard.lines)))
                draft.checks += run.checks(heard, mesh, names)


def _rfc3339(when: datetime.datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")
