"""`meshtls guard`: keep what was achieved."""

import contextlib
import datetime
import ipaddress
import json
import os
import secrets
import ssl
import tempfile
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
import msgspec

from meshtls.cli import output
from meshtls.cli.options import OUTPUTS, Duration, Options, shared
from meshtls.errors import GateError, InputError, NoData

if TYPE_CHECKING:
    from meshtls.guard.achieved import Kept

_ENGINES, _ACTIONS = ("vap", "kyverno", "gatekeeper"), ("audit", "warn", "deny")


@click.group()
def guard() -> None:
    """Keep what was achieved: admission policies that refuse what weakens it, and a check that finds what did.

    Exit codes: 0 as it should be, 1 something got weaker, 2 usage, 3 could not evaluate, 4 there is nothing to keep.
    """


@guard.command(short_help="Manifests that keep STRICT what is STRICT.")
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@click.option("-o", "--output", type=click.Choice(OUTPUTS), default="yaml", show_default=True,
              help="Manifests as yaml or json; table and wide tell what they keep.")  # fmt: skip
@shared("cluster", "place", "timeout")
@click.option("--engine", type=click.Choice(_ENGINES), default="vap", show_default=True, help="Who refuses.")
@click.option("--action", type=click.Choice(_ACTIONS), default="deny", show_default=True, help="Introduce a guard in this order.")
@click.option("--exception", "exceptions", multiple=True, metavar="FILE", help="Exceptions beyond today's, with owner, reason and expiry.")
def admission(options: Options, sources: tuple[str, ...], engine: str, action: str, exceptions: tuple[str, ...]) -> None:
    """Manifests that keep STRICT what is STRICT, with the exceptions that stand today: apply them with kubectl.

    SOURCE is a manifest, a directory of them, a dump made by `meshtls dump`, or - for standard input. Without SOURCE the
    cluster is read. What is kept is what the source has achieved; run it again after the next migration.
    """
    with output.stops(options.timeout_s):
        from meshtls.cli import meshes, yamlfiles
        from meshtls.guard.achieved import achieved
        from meshtls.guard.admission import ENGINES, admission
        from meshtls.guard.exceptions import entries, over, with_granted

        read = [one for path in exceptions for one in entries(yamlfiles.parsed(yamlfiles.text(path), path, "see docs/guard.md")[0], path)]
        mesh, namespaces = meshes.read(options, sources)
        if missing := meshes.unread(mesh):  # an exception that is not seen would be refused at its next write
            _say("nothing is written", *missing)
            raise click.exceptions.Exit(output.NOT_EVALUATED)
        kept, nothing = achieved(mesh, namespaces)
        if not kept or (options.namespaces and nothing):
            names = ",".join(sorted(nothing)) if options.namespaces else "NS"
            several = f"no policy is STRICT in {', '.join(sorted(nothing))}" if len(nothing) > 1 else "no namespace has a STRICT policy"
            said = next(iter(nothing.values())) if len(nothing) == 1 else several
            raise GateError(f"{said}: there is no STRICT to keep", f"migrate first: meshtls migrate plan -n {names}")
        ended = over(read, datetime.date.today())
        kept = with_granted(kept, [one for one in read if one not in ended])
        made = admission(kept, engine, action)
        if options.output == "yaml":
            output.echo(_yaml(made))
        elif options.output == "json":
            output.echo(json.dumps({"apiVersion": "v1", "kind": "List", "items": made}, indent=2) + "\n")
        else:
            output.echo(_table(kept, options.output == "wide"))
        _say(*meshes.notes(mesh), *(f"not kept: {why}" for why in nothing.values()),
             *(f"left out, its time was over on {one.until[:10]}: {one.rule} of {one.subject} ({one.owner})" for one in ended),
             *(f"{each.namespace}: nothing in it is in the mesh, so pods are not judged" for each in kept if not each.planes and each.scope != "mesh"),
             f"for {ENGINES[engine].name}, needs {ENGINES[engine].needs}; action {action}", *ENGINES[engine].limits)  # fmt: skip


@guard.command(short_help="What got weaker between two readings.")
@click.argument("before")
@click.argument("after", required=False)
@shared("cluster", "place", "output", "report", "timeout", "threshold", "accept")
@click.option("--apply", "overlay", multiple=True, metavar="FILE", help="As if these manifests were applied to AFTER; without AFTER, to BEFORE.")
def check(options: Options, before: str, after: str | None, overlay: tuple[str, ...]) -> None:
    """What got weaker between two readings: modes, workloads in the mesh, calls by mTLS, guards.

    BEFORE is a file that `meshtls dump` wrote, or any other source. AFTER is another one; without AFTER it is the cluster, or,
    with --apply, BEFORE as the files would change it: so a pull request is checked without a cluster.
    """
    with output.session(options, kind="GuardReport", title="Guard") as draft:
        from meshtls import sources
        from meshtls.cli import meshes
        from meshtls.guard.regression import regression

        old = sources.load([before])
        if after is None and overlay:
            new = sources.over(old, overlay)
        elif after is not None:
            new = sources.load([after], overlay=overlay)
        else:
            new, _ = meshes.read(msgspec.structs.replace(options, all_namespaces=True, namespaces=()), ())
        for name in options.namespaces:
            if name not in old.namespace_names:
                meshes.known(new, name)
        if draft.accepting:
            draft.accepting.annotated(new)
        wanted = frozenset(options.namespaces) or None
        other = after or ("the cluster" if not overlay else f"itself as {', '.join(overlay)} would change it")
        draft.facts.append(("compared", f"{before} with {other}"))
        draft.checks += regression(old, new, datetime.date.today(), wanted, meshes.unread(old, new))
        if said := meshes.notes(old, new):
            draft.facts.append(("note", "; ".join(said)))


@guard.command(short_help="Refuse by the policy engine, as a webhook.")
@shared("cluster", "place")
@click.option("--listen", default="127.0.0.1:8443", show_default=True, metavar="HOST:PORT", help="Where to listen; port 0 takes a free one.")
@click.option("--cert", metavar="FILE", help="Certificate chain (PEM) to serve with; without it, one of a test CA that lives for a day.")
@click.option("--key", metavar="FILE", help="Its key (PEM).")
@click.option("--ca", metavar="FILE", help="The CA (PEM) that the API server shall trust; without it, the chain itself.")
@click.option("--service", metavar="NS/NAME", default="", help="The Service by which the API server calls; without it, the address of --listen.")
@click.option("--configuration", "file", metavar="FILE", help="Write the ValidatingWebhookConfiguration here.")
@click.option("--failure-policy", type=click.Choice(("Fail", "Ignore")), default="Ignore", show_default=True, help="What the API server does without an answer.")
@click.option("--action", type=click.Choice(("warn", "deny")), default="deny", show_default=True, help="Warn lets through, and says it.")
@click.option("--refresh", "refresh_s", type=Duration(), default="15s", show_default=True, help="How often the mesh is read again.")
def serve(options: Options, listen: str, cert: str | None, key: str | None, ca: str | None, service: str, file: str | None,
          failure_policy: str, action: str, refresh_s: float) -> None:  # fmt: skip
    """Answer an API server's reviews by the policy engine: refuse what would lower what is STRICT when it starts.

    Runs until it is interrupted. It must not be served behind the STRICT that it guards: the API server has no sidecar.
    """
    from meshtls.cli import meshes, yamlfiles
    from meshtls.guard import webhook

    if bool(cert) != bool(key):
        raise click.UsageError("--cert and --key go together")
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdecimal() or len(port) > 5 or int(port) > 65535:
        raise click.BadParameter(f"{listen[:80]!r}: write HOST:PORT with a number, such as 127.0.0.1:8443", param_hint="--listen")
    if service and service.count("/") != 1:
        raise click.BadParameter(f"{service!r}: write NS/NAME", param_hint="--service")
    with output.stops(None), meshes.connect(options) as client:
        from meshtls import sources

        def read() -> tuple[Any, str]:
            mesh = sources.load(client=client)
            return mesh, "; ".join(meshes.unread(mesh))

        namespaces = None if options.all_namespaces else frozenset(options.namespaces) or None
        judge = webhook.Judge(read, namespaces, action == "warn")
        if problem := judge.refresh():
            raise NoData(f"the mesh cannot be judged: {problem}", "use credentials with meshtls' audit role, see docs/rbac.md")
        if missing := sorted((namespaces or frozenset()) - judge.kept):
            raise GateError(f"namespace {missing[0]} is not STRICT: there is nothing to keep", f"migrate it first: meshtls migrate plan -n {missing[0]}")
        context, authority = _tls(host, service, cert, key, yamlfiles.text(ca) if ca else "")
        try:
            server = webhook.Server((host, int(port)), context, judge, output.say)
        except OSError as error:
            raise InputError(f"cannot listen on {listen}: {error.strerror or error}", "choose another --listen") from error
        where = f"{f'[{host}]' if ':' in host else host}:{server.server_address[1]}"
        space, _, name = service.partition("/")
        called = {"service": {"namespace": space, "name": name, "path": webhook.PATH}} if service else {"url": f"https://{where}{webhook.PATH}"}
        if file:
            output.write(file, _yaml([webhook.configuration(called, authority, failure_policy)]))
        with webhook.serving(server, refresh_s, output.say):
            output.say(f"https://{where}{webhook.PATH} keeps {', '.join(sorted(judge.kept)) or 'nothing: no namespace is STRICT'}")
            threading.Event().wait()


def _tls(host: str, service: str, cert: str | None, key: str | None, authority: str) -> tuple[ssl.SSLContext, str]:
    """The server's TLS, and the CA that its clients shall trust, as PEM."""
    from cryptography import x509

    from meshtls.pki.authority import LONGEST, Authority

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cert and key:
        from meshtls.cli import yamlfiles

        try:
            context.load_cert_chain(cert, key)
        except (OSError, ssl.SSLError) as error:
            raise InputError(f"{cert}, {key}: cannot be used: {error.strerror or error}", "name a PEM chain and its key") from error
        return context, authority or yamlfiles.text(cert)
    now = datetime.datetime.now(datetime.UTC)
    made = Authority.new(now, LONGEST, secrets.token_bytes)
    names: list[x509.GeneralName] = [x509.DNSName("localhost")]
    with contextlib.suppress(ValueError):
        names.append(x509.IPAddress(ipaddress.ip_address(host)))
    if service:
        space, _, name = service.partition("/")
        names.append(x509.DNSName(f"{name}.{space}.svc"))
    leaf = made.issue(names, made.life(now, LONGEST), secrets.token_bytes)
    with tempfile.TemporaryDirectory(prefix="meshtls-guard-") as folder:  # ssl takes files only; they are gone before anyone is answered
        path = os.path.join(folder, "pair.pem")
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as pair:
            pair.write(leaf.certificate_pem + leaf.key_pem)
        context.load_cert_chain(path)
    return context, made.pair().certificate_pem


def _say(*notes: str) -> None:
    for note in dict.fromkeys(notes):
        output.say(f"note: {note}")


def _yaml(manifests: Sequence[Any]) -> str:
    import yaml

    class Plain(yaml.SafeDumper):
        """Without anchors: what two manifests share is written twice."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    return yaml.dump_all(manifests, Dumper=Plain, sort_keys=False, allow_unicode=True, width=140)


def _table(kept: Sequence["Kept"], wide: bool) -> str:
    from meshtls.guard.rules import RULES
    from meshtls.report.columns import columns

    what = {"namespace": "the namespace", "workloads": "some workloads", "mesh": "the mesh's policy"}
    rows = []
    for each in kept:
        by = ", ".join(sorted(each.keepers)) + (" (the mesh's)" if each.inherits else "")
        rows.append([each.namespace, what[each.scope], by.strip(), ", ".join(each.planes) or "-", str(len(each.excepted)), str(len(each.granted))])
    text = columns(rows, ["NAMESPACE", "KEPT", "BY", "DATA PLANE", "EXCEPTIONS", "GRANTED"])
    if wide:
        excepted = [[each.namespace, _words(one), "stands today"] for each in kept for one in each.excepted]
        excepted += [[each.namespace, f"{g.rule} {g.subject}", f"{g.owner} until {g.until[:10]}: {g.reason}"] for each in kept for g in each.granted]
        text += "\n" + columns(excepted, ["NAMESPACE", "EXCEPTION", "WHY"]) if excepted else ""
        text += "\n" + columns([[r.name, ", ".join(r.catalogue), r.says] for r in RULES], ["RULE", "CATALOGUE", "SAYS"])
    return text


def _words(pattern: str) -> str:
    """An exception's pattern as a person reads it."""
    return pattern.strip("^$").replace("\\", "")
