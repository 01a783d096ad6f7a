"""What a Prometheus adds to the logs, for the verbs that take --prometheus: it is asked, or why not is one check."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from meshtls.cli.options import Options
from meshtls.errors import MeshtlsError
from meshtls.model.check import Check, Status

if TYPE_CHECKING:
    from meshtls.model.mesh import Mesh
    from meshtls.observe.prometheus import Prometheus
    from meshtls.observe.senders import Sender


@contextlib.contextmanager
def asking(options: Options) -> "Iterator[Prometheus | None]":
    """The Prometheus of the options, or None without one. Raises InputError for files and URLs that cannot be used."""
    secrets = options.prometheus_token_file, options.prometheus_user, options.prometheus_password_file, options.prometheus_ca
    if not options.prometheus:
        if any(secrets):
            raise click.UsageError("--prometheus-... say how to ask a Prometheus: give --prometheus URL too")
        yield None
        return
    if options.prometheus_token_file and (options.prometheus_user or options.prometheus_password_file):
        raise click.UsageError("give a token or a user with a password, not both")
    if options.prometheus_password_file and not options.prometheus_user:
        raise click.UsageError("--prometheus-password-file needs --prometheus-user")
    from meshtls.observe.prometheus import Prometheus, Source

    source = Source(url=options.prometheus, token_file=options.prometheus_token_file, user=options.prometheus_user,
                    password_file=options.prometheus_password_file, ca_file=options.prometheus_ca)  # fmt: skip
    with Prometheus(source) as prometheus:
        yield prometheus


def counted(
    prometheus: "Prometheus", mesh: "Mesh", namespaces: Sequence[str], since_s: float, senders: "Iterable[Sender]" = ()
) -> tuple[tuple[Check, ...], str]:
    """The checks of what was counted in the last `since_s` seconds, and how far that reaches. No answer is an ERROR."""
    from meshtls.observe import counted as judging
    from meshtls.observe.prometheus import count

    workloads = judging.proxied(mesh, namespaces)
    try:
        found = count(prometheus, workloads, namespaces, since_s)
    except MeshtlsError as error:
        problem = Check(id="metrics", title="the metrics could be asked", status=Status.ERROR, reason=str(error), group=judging.GROUP)
        return (problem,), f"{prometheus.name}: not asked"
    return judging.checks(found, workloads, mesh, senders), judging.reach(found, workloads)
