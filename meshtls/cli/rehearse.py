"""`meshtls rehearse [SOURCE...] -n NS`: a migration on this machine before it touches production."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from meshtls.cli.options import Duration, Options, duration, environment, shared
from meshtls.errors import InputError

if TYPE_CHECKING:
    from meshtls.model.mesh import Mesh
    from meshtls.rehearse.calls import Arrival
    from meshtls.rehearse.fault import Fault
    from meshtls.rehearse.run import Done

SOAK_S = 6.0


class FaultType(click.ParamType):  # type: ignore[type-arg]
    """`KIND` or `KIND=DURATION`; its value is a Fault."""

    name = "fault"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> "Fault":
        from meshtls.rehearse.fault import KINDS, Fault

        kind, _, text = str(value).partition("=")
        if kind not in KINDS:
            self.fail(f"{kind!r} is no fault: it is one of {', '.join(KINDS)}", param, ctx)
        standard = KINDS[kind][0]
        if text and not standard:
            self.fail(f"{kind} takes no duration", param, ctx)
        try:
            return Fault(kind, duration(text) if text else standard)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command()
@click.argument("paths", nargs=-1, metavar="[SOURCE]...")
@shared("cluster", "place", "output", "report", "timeout")
@click.option("--apply", "overlay", multiple=True, metavar="FILE", help="Lay these manifests over SOURCE first: rehearse a fix.")
@click.option("--calls", "calls", metavar="FILE", help="Who calls whom: a report of `meshtls observe -o json`, or a list (docs/rehearse.md).")
@click.option("--since", type=Duration(), default="1h", show_default=True, help="Of a cluster: how far back its proxies' logs tell who calls.")
@click.option("--all-predicted", is_flag=True, help="Let everybody call who is predicted to reach the namespace.")
@click.option("--max-pods", default=40, show_default=True, type=click.IntRange(1, 200), help="How many stand-ins fit on this machine.")
@click.option("--soak", type=Duration(), help=f"How long each stage is watched.  [default: {SOAK_S:g}s, or until each call was made three times]")
@click.option("--canary", default="", metavar="NAME", help="The workload that goes first: name or Kind/name.")
@click.option("--force", is_flag=True, help="Go on past what would hold: shows who is refused, and the way back.")
@click.option("--accept-plaintext-from", "accept", multiple=True, metavar="NS/NAME", help="A client whose refusal is accepted.")
@click.option("--gitops-override", is_flag=True, help="Change policies that Argo CD or Flux writes.")
@click.option("--fault", "faults", multiple=True, type=FaultType(), metavar="KIND[=DURATION]",
              help="Rehearse under it: slow-control-plane, stuck-proxy, api-503, api-429; repeatable.")
@click.option("--mode", default="auto", show_default=True, type=click.Choice(["auto", "namespaces", "loopback"]),
              help="Of the lab; auto: loopback where namespaces are refused.")
def rehearse(
    options: Options, paths: tuple[str, ...], overlay: tuple[str, ...], calls: str | None, since: float, all_predicted: bool, max_pods: int, soak: float | None,
    canary: str, force: bool, accept: tuple[str, ...], gitops_override: bool, faults: "tuple[Fault, ...]", mode: str,
) -> None:  # fmt: skip
    """Rehearse a migration on this machine before it touches production.

    SOURCE is a dump made by `meshtls dump`, manifests, or - for standard input; without it the cluster is read, and never written to. The
    namespace, its clients and its servers come up in a lab of real Envoys with stand-ins for the workloads, the clients call, and
    `meshtls migrate` runs against that, gates, soak and rollback included.

    Exit codes: 0 it would go through, 1 a call fails or the way back is not exact, 3 something could not be judged, 4 it held or went back.
    """
    from meshtls.cli import meshes
    from meshtls.cli.output import exit_code, session
    from meshtls.rehearse import calls as known_calls
    from meshtls.rehearse.calls import GIVEN
    from meshtls.rehearse.run import Rehearsal, Wish
    from meshtls.rehearse.scope import scope
    from meshtls.rehearse.stand import every_s
    from meshtls.report.text import plural

    if len(options.namespaces) != 1:
        raise click.UsageError("rehearse works on one namespace: -n NS")
    if calls and all_predicted:
        raise click.UsageError("--calls and --all-predicted exclude each other")
    with session(options, kind="RehearseReport", title="Rehearsal") as draft:
        namespace = options.namespaces[0]
        mesh, _ = meshes.read(options, paths, overlay)
        heard = _heard(options, mesh, namespace, since) if not paths and calls is None and not all_predicted else ()
        known = known_calls.best(mesh, namespace, _document(calls), all_predicted, heard)
        found = scope(mesh, namespace, known.calls, max_pods)
        draft.facts += [("namespace", namespace), ("calls", f"{len(found.calls)} of {len(known.calls)}, from {known.source}")]
        draft.facts += [("stand-ins", f"{plural(found.pods, 'pod')} in {plural(len(found.namespaces), 'namespace')}")]
        draft.facts += [("note", note) for note in (*known.notes, *meshes.notes(mesh))]
        for line in (f"{plural(len(found.calls), 'call')}, from {known.source}", *known.notes):
            _say(line)
        if known.source != GIVEN and not found.calls:
            _say(f"nobody is known to call {namespace}: --calls FILE says who does")
        soak_s = max(SOAK_S, 3 * every_s(found)) if soak is None else soak
        arguments = ["--soak", f"{soak_s:g}s", *(["--canary", canary] if canary else []), *(["--force"] if force else []),
                     *(["--gitops-override"] if gitops_override else []), *(part for name in accept for part in ("--accept-plaintext-from", name))]  # fmt: skip
        wish = Wish(namespace=namespace, arguments=tuple(arguments), accepted=accept, faults=faults, mode=mode.replace("auto", ""),
                    name=f"rehearse-{os.getpid()}")  # fmt: skip
        draft.cleanup_command = f"meshtls lab down --name {wish.name}"
        rehearsal = Rehearsal(mesh, wish, known, found, _programs(), _verb, _say)
        try:
            code = rehearsal.run()
        finally:
            draft.checks += rehearsal.checks
            draft.matrices += rehearsal.matrices
            draft.facts += rehearsal.facts
        own = draft.report()
        draft.code = exit_code(_only(own, rehearsal.own), options.fail_on) if code is None else code


def _heard(options: Options, mesh: "Mesh", namespace: str, since_s: float) -> "list[Arrival]":
    """Who arrived at the namespace's workloads, by their proxies' logs; nobody, and why, where these cannot be read."""
    import datetime

    from meshtls.cli.meshes import connect
    from meshtls.cluster.owned import timestamp
    from meshtls.errors import MeshtlsError
    from meshtls.observe import run
    from meshtls.rehearse.calls import Arrival

    since = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=since_s)
    try:
        with connect(options) as client:
            heard = run.start(mesh, [namespace])
            run.read(client, heard, timestamp(since))
    except MeshtlsError as error:
        _say(f"the logs tell nobody: {error.message}")
        return []
    if heard.deaf:
        _say(f"not every log could be read: {next(iter(heard.deaf.values()))}")
    return [Arrival(sender.client.ref or sender.client.address, sender.server, sender.port) for sender in heard.group.senders if not sender.client.own]


def _only(report: Any, checks: Any) -> Any:
    import msgspec

    return msgspec.structs.replace(report, checks=tuple(checks))


def _document(path: str | None) -> object:
    """What --calls holds: JSON or YAML. Raises InputError."""
    import yaml

    if path is None:
        return None
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
        return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}", "name a file with --calls") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{path} is neither JSON nor YAML: {' '.join(str(error).split())[:200]}", "give a report of `meshtls observe -o json`") from error


def _programs() -> Any:
    """The stand-in's program, and a certificate for those that bring TLS of their own. Raises InputError."""
    import datetime
    import secrets

    from cryptography import x509

    from meshtls.pki.authority import LIFETIME, Authority
    from meshtls.rehearse.stand import Programs

    here = Path(__file__).resolve().parents[1]
    for folder in (here / "_probes", here.parent / "probes"):
        if (folder / "standin.py").is_file():
            now = datetime.datetime.now(datetime.UTC)
            authority = Authority.new(now, LIFETIME, secrets.token_bytes)
            pair = authority.issue([x509.DNSName("stand-in")], authority.life(now, LIFETIME), secrets.token_bytes)
            return Programs((folder / "standin.py").read_text(encoding="utf-8"), pair.certificate_pem + pair.key_pem)
    raise InputError("the stand-in's program is not installed", "install meshtls again: standin.py is missing")


def _verb(arguments: Sequence[str], kubeconfig: str, hear: Callable[[str], None]) -> "Done":
    """A command as a user would type it, in a process that ends with this one's work."""
    from meshtls.rehearse.run import Done
    from meshtls.report.json import parse

    with tempfile.TemporaryDirectory(prefix="meshtls-rehearse-") as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "meshtls.cli.main", *arguments, "--kubeconfig", kubeconfig, "--report", f"json={report}"]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
                              env=environment()) as process:  # fmt: skip
            try:
                assert process.stderr is not None
                for line in process.stderr:
                    hear(line.decode(errors="replace").rstrip())
                code = process.wait()
            except BaseException:
                process.kill()  # the lab that it works on goes now
                raise
        return Done(code, parse(report.read_bytes()) if report.exists() else None)


def _say(text: str) -> None:
    import contextlib

    with contextlib.suppress(OSError):
        click.echo(text, err=True)
