"""`meshtls shadow`: count on live traffic what STRICT would refuse, refusing nothing."""

import datetime
import secrets

import click

from meshtls.cli.counting import asking
from meshtls.cli.options import Duration, Options, same_cluster, shared
from meshtls.errors import InputError, NoData
from meshtls.model.check import Check, Status

EXTRA_S = 300


@click.command()
@shared("cluster", "scope", "output", "report", "timeout", "threshold", "prometheus")
@click.option("--for", "for_s", type=Duration(), default="5m", show_default=True, metavar="DURATION", help="How long is counted.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def shadow(options: Options, for_s: float, yes: bool) -> None:
    """Count on live traffic what STRICT would refuse, by port, refusing nothing.

    Puts a dry-run AuthorizationPolicy into one namespace (with -l, for pods with these labels), reads its counters through
    --prometheus, and takes it away again. Both changes end long inbound connections of these pods 45 s later.

    Exit codes: 0 STRICT would refuse nothing that came, 1 it would, 2 usage, or a place where this is not tried, 3 nothing
    came or no proxy was seen counting, 130 interrupted; the policy is gone after each of them.
    """
    from meshtls import sources
    from meshtls.cli.carrying import ask
    from meshtls.cli.meshes import connect, one
    from meshtls.cli.output import session
    from meshtls.cli.witness import progress
    from meshtls.cluster.owned import Run
    from meshtls.observe import run_shadow
    from meshtls.observe import shadow as head
    from meshtls.observe.counted import proxied

    if options.all_namespaces or len(options.namespaces) > 1:
        raise click.UsageError("shadow works on one namespace: -n NS")
    if not options.prometheus:
        raise click.UsageError("--prometheus URL is needed: the proxies' counters are read through it")
    labels = _labels(options.selector)
    with (
        session(options, kind="ShadowReport", title="What STRICT would refuse") as draft, asking(options) as prometheus,
        connect(options, say=progress) as client,
    ):  # fmt: skip
        assert prometheus is not None
        namespace = one(options, client)
        mesh = sources.load(client=client)
        if problems := head.refusals(mesh, namespace, labels):
            raise InputError(f"not tried: {problems[0]}", "nothing was changed")
        workloads = head.subjects(proxied(mesh, [namespace]), mesh, namespace, labels)
        if not workloads:
            raise NoData(f"no workload of {namespace} that is meant has a sidecar, so nothing would be counted", "meshtls modes lists them")
        expires = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=for_s + EXTRA_S)
        run = Run(secrets.token_hex(3), "shadow", expires, where=f"-n {namespace}{same_cluster(options)}")
        run_shadow.tried(client, run, namespace, labels)
        click.echo(f"{namespace}: long inbound connections of {len(workloads)} workloads, over mTLS too, end 45 s after the policy comes "
                   "and 45 s after it goes (drainDuration)", err=True)  # fmt: skip
        ask(f"Count in {namespace} for {for_s:g} s what STRICT would refuse?", yes)
        draft.facts += [("namespace", namespace), ("counted for", f"{for_s:g} s"), ("by", prometheus.name)]
        draft.cleanup_command = run.cleanup_command
        tally = head.Tally()
        left: list[str] = []
        try:
            run_shadow.watch(client, prometheus, run, namespace, labels, workloads, for_s, tally, left, progress)
        finally:
            draft.checks += head.checks(tally, workloads) if tally.begun else ()
            draft.checks += [Check(id="cleanup", title="the policy is gone", status=Status.ERROR, group="cleanup",
                                   reason=f"{problem}; run: {run.cleanup_command}") for problem in left]  # fmt: skip


def _labels(selector: str) -> dict[str, str]:
    """The labels of `-l a=b,c=d`: an AuthorizationPolicy selects by nothing else."""
    pairs = [part.partition("=") for part in selector.replace("==", "=").split(",") if part]
    if any(not key or not equals or key.endswith("!") or " " in f"{key}{value}" for key, equals, value in pairs):
        raise click.UsageError(f"-l {selector}: a policy selects by labels that are equal only: KEY=VALUE,...")
    return {key: value for key, _, value in pairs}
