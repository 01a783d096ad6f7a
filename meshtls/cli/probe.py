"""`meshtls probe`: prove on the wire what is reachable, and how, beside what the policies say."""

import re
from typing import TYPE_CHECKING, Any

import click
import msgspec

from meshtls.cli import expect
from meshtls.cli.options import Duration, Options, same_cluster, shared

if TYPE_CHECKING:
    from meshtls.cli.output import Draft
    from meshtls.cluster.client import Client
    from meshtls.model.mesh import Mesh
    from meshtls.probe.deploy import Settings
    from meshtls.probe.run import Collected

TIMEOUT_S = 300.0
EXTRA_S = 600  # how much longer than --timeout what we create may live, if we are killed
_LABEL = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_./]*")


@click.command()
@shared("cluster", "scope", "output", "report", "timeout", "threshold", "accept")
@click.option(
    "--offers",
    default="",
    metavar="LIST",
    help="What clients bring: plaintext, tls, unknown-ca, mtls (these by default), "
    "tls-istio, server-first, a flaw of `meshtls pki flaws`; or all.",
)
@click.option(
    "--fingerprint-only",
    is_flag=True,
    help="Only the two handshakes with each pod that is there; nothing is deployed but one client a namespace.",
)
@click.option("--no-fingerprint", is_flag=True, help="Only the probe pods among themselves.")
@click.option("--image", default="", metavar="IMAGE", help="An image with Python 3.8 or newer, named python3.")
@click.option(
    "--image-pull-secret",
    "pull_secrets",
    multiple=True,
    metavar="NAME",
    help="A Secret of each namespace for the image.",
)
@click.option(
    "--node-selector", "node_selectors", multiple=True, metavar="KEY=VALUE", help="Only nodes with this label."
)
@click.option(
    "--toleration", "tolerations", multiple=True, metavar="KEY[=VALUE][:EFFECT]", help="A taint that probe pods bear."
)
@click.option(
    "--run-as-user", default="65532", metavar="UID|none", help="User of the probe pods; none: the cluster assigns one."
)
@click.option("--revision", default="", metavar="REV", help="The Istio revision that injects the probe pods.")
@click.option("--connect-timeout", type=Duration(), default="5s", show_default=True, help="Of one connection.")
@click.option(
    "--ready-timeout", type=Duration(), default="60s", show_default=True, help="For a probe pod to become ready."
)
@click.option("--keep", is_flag=True, help="Leave the probe pods, to look at them.")
@expect.OPTION
@click.option("--dry-run", is_flag=True, help="Print what would be created, and create nothing.")
def probe(options: Options, **given: Any) -> None:
    """Deploy clients and servers with and without sidecar, and show expectation beside observation.

    Also takes the fingerprint of every port of the pods that are there: two TLS handshakes tell STRICT, PERMISSIVE or not
    enforced, and no byte of payload is sent. Everything it creates is gone afterwards, also after Ctrl-C.

    With --expect it also looks at what the file says, and without -n in the namespaces that this takes.

    Exit codes: 0 all as expected, 1 findings, 2 usage, 3 something could not be told, 124 timeout, 130 interrupted.
    """
    from meshtls.cli.meshes import connect
    from meshtls.cli.output import session

    options = msgspec.structs.replace(options, timeout_s=options.timeout_s or TIMEOUT_S)
    settings, offers = _settings(options, given), _offers(given["offers"])
    if given["fingerprint_only"] and given["no_fingerprint"]:
        raise click.UsageError("--fingerprint-only and --no-fingerprint exclude each other")
    if given["expected"] and (given["no_fingerprint"] or options.selector):
        raise click.UsageError("--expect needs the fingerprint of every pod: it excludes --no-fingerprint and -l")
    if options.all_namespaces and not given["fingerprint_only"]:
        raise click.UsageError("-A needs --fingerprint-only: probe pods in every namespace would be too many")
    with (
        session(options, kind="ProbeReport", title="Probe") as draft,
        connect(options) as client,
    ):
        _probe(client, options, settings, offers, given, draft)


def _probe(
    client: "Client",
    options: Options,
    settings: "Settings",
    offers: tuple[str, ...],
    given: dict[str, Any],
    draft: "Draft",
) -> None:
    import datetime

    from meshtls.cluster.owned import Run
    from meshtls.probe import compare
    from meshtls.probe import run as hand
    from meshtls.probe.known import Known
    from meshtls.probe.plan import Wanted, plan
    from meshtls.sources import load

    asked = expect.Asked(given["expected"])
    named = not asked.expected or options.namespaces or options.all_namespaces
    namespaces = _namespaces(client, options) if named else ()
    mesh = _selected(load(client=client), options)
    if draft.accepting:
        draft.accepting.annotated(mesh)
    if asked.expected:
        asked.look(mesh)
        namespaces = namespaces if named else asked.named()
    draft.title = (
        f"Probe of {', '.join(namespaces)}" if len(namespaces) < 9 else f"Probe of {len(namespaces)} namespaces"
    )
    wanted = Wanted(
        namespaces=namespaces,
        offers=offers,
        cells=not given["fingerprint_only"],
        fingerprint=not given["no_fingerprint"],
        also=asked.also,
    )
    planned = _uncaptured(plan(mesh, wanted, Known(mesh).of_pod), mesh, settings)
    programs, certs = hand.programs(), _certs(offers, mesh.config.trust_domain, namespaces[0] if namespaces else "default")
    if given["dry_run"]:
        _show(hand.manifests(planned, settings, programs, certs), options)
        raise click.exceptions.Exit(0)
    now = datetime.datetime.now(datetime.UTC)
    where = f"-n {','.join(namespaces)}" if len(namespaces) < 9 else "-A"
    run = Run(settings.run, "probe", now + datetime.timedelta(seconds=(options.timeout_s or 0) + EXTRA_S), where + same_cluster(options))
    draft.cleanup_command = run.cleanup_command
    collected = hand.Collected(planned)
    try:
        hand.collect(
            client,
            run,
            settings,
            programs,
            certs,
            collected,
            keep=given["keep"],
            ready_s=given["ready_timeout"],
            progress=lambda text: click.echo(f"probe {run.id}: {text}", err=True),
        )
    finally:
        _fill(draft, mesh, collected, run.cleanup_command)
        if asked.expected:
            draft.checks += asked.checks(mesh, collected.plan, compare.Seen(collected.plan, collected.observations, collected.logged), namespaces)


def _fill(draft: "Draft", mesh: "Mesh", collected: "Collected", cleanup_command: str) -> None:
    """The report of what was collected, however far it came."""
    from meshtls.model.check import Check, Status
    from meshtls.probe import compare
    from meshtls.probe.known import Known, with_ours

    plan = collected.plan
    known = Known(with_ours(mesh, collected.live), collected.names)
    seen = compare.Seen(plan, collected.observations, collected.logged)
    verdicts = [compare.judge(case, known.expect(case), seen) for case in plan.cases]
    checks, matrices = compare.fingerprints(plan, seen)
    draft.checks += [*compare.checks(verdicts), *checks, *plan.skipped]
    draft.checks += [
        Check(
            id=f"cleanup/{i}",
            title="everything that was created is gone",
            status=Status.ERROR,
            group="cleanup",
            reason=f"{problem}; run: {cleanup_command}",
        )
        for i, problem in enumerate(collected.left)
    ]
    draft.matrices += [*compare.matrices(verdicts), *matrices]
    asked = len(plan.questions)
    draft.facts += [("questions", str(asked)), ("seconds of asking", f"{collected.agent_s:.2f}")]
    draft.facts += (
        [("lines of a probe pod that were not its agent's", str(collected.foreign))] if collected.foreign else []
    )


def _namespaces(client: "Client", options: Options) -> tuple[str, ...]:
    """The namespaces asked for. Raises InputError for one that does not exist."""
    from meshtls.cli.meshes import exists

    if options.all_namespaces:
        names = [item["metadata"]["name"] for item in client.list("Namespace")]
        return tuple(name for name in sorted(names) if not name.startswith("kube-"))
    wanted = options.namespaces or (client.namespace,)
    for name in wanted:
        exists(client, name)
    return wanted


def _selected(mesh: "Mesh", options: Options) -> "Mesh":
    """The mesh with only the pods that `-l` names among those to be asked."""
    from meshtls.cli.meshes import chosen

    refs = chosen(options, mesh)
    if refs is None:
        return mesh
    of_pod = mesh.workload_of_pod
    pods = tuple(p for p in mesh.pods if (w := of_pod.get((p.namespace, p.name))) is not None and w.ref in refs)
    return msgspec.structs.replace(mesh, pods=pods)


def _uncaptured(plan: Any, mesh: "Mesh", settings: "Settings") -> Any:
    """The plan without pods that a Service of the cluster would take for its own."""
    from meshtls.cluster.owned import labels
    from meshtls.probe import deploy
    from meshtls.probe.plan import ports_used

    for server in plan.servers:
        own = deploy.echo_pod(settings, server, ports_used(plan))["metadata"]["labels"] | labels("probe", settings.run)
        service = deploy.captured_by(mesh, own, server.namespace)
        if service:
            gone = [who for who in plan.everyone if who.namespace == server.namespace]
            plan = plan.without(
                gone, f"{service} would send its traffic to probe pods: its selector matches their labels"
            )
    return plan


def _settings(options: Options, given: dict[str, Any]) -> "Settings":
    import secrets

    from meshtls.probe.deploy import IMAGE, Settings

    user = given["run_as_user"]
    if user != "none" and (not user.isdecimal() or len(user) > 10 or int(user) in (0, 1337)):
        raise click.UsageError("--run-as-user: a number that is neither 0 nor 1337 (Istio's own), or none")
    limit = options.timeout_s or TIMEOUT_S
    return Settings(
        run=secrets.token_hex(3),
        image=given["image"] or IMAGE,
        pull_secrets=given["pull_secrets"],
        revision=given["revision"],
        node_selector=dict(_pair(text, "--node-selector") for text in given["node_selectors"]),
        tolerations=tuple(_toleration(text) for text in given["tolerations"]),
        user=None if user == "none" else int(user),
        deadline_s=int(limit) + EXTRA_S,
        agent_s=max(5.0, limit * 0.8),
        timeout_s=given["connect_timeout"],
    )


def _pair(text: str, option: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not _LABEL.fullmatch(key):
        raise click.UsageError(f"{option} {text}: write KEY=VALUE")
    return key, value


def _toleration(text: str) -> dict[str, str]:
    rest, _, effect = text.partition(":")
    key, equals, value = rest.partition("=")
    if not _LABEL.fullmatch(key) or effect not in ("", "NoSchedule", "PreferNoSchedule", "NoExecute"):
        raise click.UsageError(f"--toleration {text}: write KEY[=VALUE][:EFFECT]")
    found = {"key": key, "operator": "Equal", "value": value} if equals else {"key": key, "operator": "Exists"}
    return found | ({"effect": effect} if effect else {})


def _offers(text: str) -> tuple[str, ...]:
    from meshtls.probe.case import DEFAULT_OFFERS, OFFERS

    names = [name.strip() for name in text.split(",") if name.strip()]
    if names == ["all"]:
        return tuple(OFFERS)
    unknown = [name for name in names if name not in OFFERS]
    if unknown:
        raise click.UsageError(f"--offers {unknown[0]}: no such offer; there are {', '.join(OFFERS)}")
    return tuple(dict.fromkeys(names)) or DEFAULT_OFFERS


def _certs(offers: tuple[str, ...], trust_domain: str, namespace: str) -> dict[str, str]:
    """Test certificates for the offers that bring one: PEM with the key, by name. The CA's key dies with this call."""
    import datetime
    import secrets

    from meshtls.pki import flaws
    from meshtls.pki.authority import LIFETIME, Authority
    from meshtls.pki.identity import Identity
    from meshtls.probe.case import OFFERS

    now = datetime.datetime.now(datetime.UTC)
    authority = Authority.new(now, LIFETIME, secrets.token_bytes)
    order = flaws.Order(authority, Identity(trust_domain, namespace, "meshtls-probe"), now, secrets.token_bytes)
    made = {}
    for cert in {OFFERS[name].cert for name in offers} - {""}:
        pair = flaws.issue(cert, order)
        made[cert] = pair.key_pem + pair.certificate_pem
    return made


def _show(objects: Any, options: Options) -> None:
    """The manifests as YAML documents, or as a List in JSON."""
    import yaml

    from meshtls.cli.output import echo

    if options.output == "json":
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        echo(msgspec.json.format(msgspec.json.encode(listed), indent=2).decode() + "\n")
    else:
        echo(yaml.safe_dump_all(list(objects), sort_keys=False))
