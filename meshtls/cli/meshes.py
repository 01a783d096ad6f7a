"""Reading a mesh for a verb: from SOURCEs, or from the cluster that the flags name; and which namespaces were asked about."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from meshtls.cli.options import Options
from meshtls.errors import Forbidden, InputError, NotFound
from meshtls.model.mesh import Mesh

if TYPE_CHECKING:
    from meshtls.cluster.client import Client


def connect(options: Options, say: Callable[[str], None] | None = None) -> "Client":
    """A client of the cluster that the flags name, as whom they name; nothing is sent yet. Raises InputError."""
    from meshtls.cluster.client import Client

    return Client.connect(options.kubeconfig, options.context, say=say, as_user=options.as_user, as_groups=options.as_groups)


def read(options: Options, paths: Sequence[str], overlay: Sequence[str] = ()) -> tuple[Mesh, frozenset[str] | None]:
    """(the mesh, the namespaces that are meant; None: all). Raises InputError or ClusterError.

    Files mean all namespaces unless -n says less; a cluster means the context's unless -n or -A says otherwise.
    """
    from meshtls import sources

    if paths:
        mesh, wanted = sources.load(paths, overlay=overlay), options.namespaces
    else:
        with connect(options) as client:
            mesh = sources.load(client=client, namespaces=options.namespaces or None, overlay=overlay)
            wanted = options.namespaces or ((client.namespace or "default",) if not options.all_namespaces else ())
    for name in wanted:
        known(mesh, name)
    return mesh, frozenset(wanted) if wanted and not options.all_namespaces else None


# kinds that decide about modes and calls; where one of them exists and may not be read, no answer is whole
DECIDING = (
    "Namespace", "Pod", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob", "Service", "EndpointSlice",
    "PeerAuthentication", "DestinationRule", "VirtualService", "Sidecar", "ServiceEntry", "WorkloadEntry", "ConfigMap",
    "MutatingWebhookConfiguration", "HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute", "BackendTLSPolicy",
)  # fmt: skip


# kinds whose objects make the API server call into a namespace: who changes a policy has to know of them, too
CALLING = ("ValidatingWebhookConfiguration", "CustomResourceDefinition", "APIService")


def unread(*read_: Mesh, kinds: tuple[str, ...] = DECIDING) -> tuple[str, ...]:
    """A note for each deciding kind that exists and could not be read: answers leave it out."""
    from meshtls.sources.live import NOT_SERVED

    return tuple(dict.fromkeys(
        f"{kind} could not be read, and the answers leave it out: {reason}"
        for mesh in read_ for kind, reason in mesh.absent.items() if kind in kinds and reason != NOT_SERVED
    ))  # fmt: skip


def notes(*read_: Mesh) -> tuple[str, ...]:
    """What was assumed while reading, and what is missing."""
    from meshtls.policy.engine import Engine
    from meshtls.policy.inject import ASSUMED, NO_ISTIO

    said = [note for mesh in read_ for note in mesh.notes]
    if any(Engine.of(mesh).injector.assumed and not all(w.pods for w in mesh.workloads) for mesh in read_):
        said.append(ASSUMED)
    if any(Engine.of(mesh).injector.no_istio for mesh in read_):
        said.append(NO_ISTIO)
    return tuple(dict.fromkeys((*said, *unread(*read_))))


def told(options: Options, *read_: Mesh) -> None:
    """The notes, for people, after the answer; then leave with 3 where a deciding kind could not be read."""
    import click

    from meshtls.cli.output import NOT_EVALUATED, say

    if options.output in ("table", "wide"):
        for note in notes(*read_):
            say(f"note: {note}")
    if unread(*read_):
        raise click.exceptions.Exit(NOT_EVALUATED)


def known(mesh: Mesh, namespace: str) -> None:
    """Raises InputError for a namespace that does not exist."""
    if namespace not in mesh.namespace_names:
        where = "the cluster" if mesh.live else "the input"
        raise InputError(f"no namespace {namespace} in {where}", "see the spelling, or use -A for all")


def exists(client: "Client", namespace: str) -> None:
    """Raises InputError for a namespace that the cluster does not have; where it may not be asked for, others will tell."""
    try:
        client.get("Namespace", namespace)
    except NotFound:
        raise InputError(f"namespace {namespace} does not exist", "see: kubectl get namespaces") from None
    except Forbidden:
        pass  # a role for one namespace may not read namespaces


def one(options: Options, client: "Client") -> str:
    """The one namespace asked for. Raises InputError where it does not exist."""
    name = options.namespaces[0] if options.namespaces else client.namespace
    exists(client, name)
    return name


def chosen(options: Options, mesh: Mesh) -> frozenset[str] | None:
    """The refs of the workloads that `-l` names, by the labels of their pods; None where it was not given.

    Raises InputError for a selector that cannot be read, or that no workload satisfies.
    """
    from meshtls.policy.select import matches, selector

    if not options.selector:
        return None
    wanted = selector(options.selector)
    found = frozenset(w.ref for w in mesh.workloads if any(matches(wanted, face.labels) for face in w.faces))
    if not found:
        raise InputError(f"no workload has the labels {options.selector}", "meshtls modes -A lists workloads; labels are those of pods")
    return found
