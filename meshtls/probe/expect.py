"""What should come of an offer, by the mode that the server's port enforces and by what leaves the client.

The table below is the whole law; it was measured on a real mesh (the names of the chains are those of Istio's
`pilot/pkg/networking/core/listener_inbound.go` and `filterchain_options.go`):

    client without sidecar         STRICT          PERMISSIVE http   PERMISSIVE tcp   not enforced / no sidecar
    plaintext                      REFUSED         PLAINTEXT         PLAINTEXT        PLAINTEXT
    TLS, no Istio ALPN             REFUSED, mesh   REFUSED, no chain the application  the application
    TLS, Istio's ALPN              REFUSED, mesh   REFUSED, mesh     REFUSED, mesh    the application
    nothing, server speaks first   STALLED         STALLED           STALLED          PLAINTEXT

    client with sidecar
    plaintext to the pod's address as a client without sidecar: its own sidecar passes the bytes on
    by the Service's name          MTLS            MTLS              MTLS             PLAINTEXT (auto mTLS)

"The application" here is our echo server, which does not speak TLS: REFUSED without a mesh certificate.  No certificate
of ours is from the mesh's CA, so none is ever accepted by a port that shows a mesh certificate.
"""

from meshtls.probe.case import Case, Expectation, Mode, Outcome


def expectation(case: Case, mode: Mode, sends: str = "", because: tuple[str, ...] = ()) -> Expectation:
    """The expected outcome of `case`. `mode` is that of the server's port.

    `sends`: what leaves a client with sidecar ("mtls", "plaintext", "tls", "none"); "" is Istio's default: plaintext to a pod's
    address, automatic mTLS by a Service's name.
    """
    if mode is Mode.UNKNOWN:
        return Expectation(outcome=None, because=because or ("the mode of the port is not known",))
    enforced = mode is not Mode.UNENFORCED
    offer = case.offer
    if case.client.meshed:
        return _through_sidecar(mode, sends or ("mtls" if offer.by_service and enforced else "plaintext"), because)
    if offer.do == "silence":
        return Expectation(outcome=Outcome.STALLED if enforced else Outcome.PLAINTEXT, because=because)
    if offer.do == "plaintext":
        return Expectation(outcome=Outcome.REFUSED if mode is Mode.STRICT else Outcome.PLAINTEXT, because=because)
    shown = mode is Mode.STRICT or (enforced and "istio" in offer.alpn)
    return Expectation(outcome=Outcome.REFUSED, mesh_cert=shown, because=because)


def _through_sidecar(mode: Mode, sends: str, because: tuple[str, ...]) -> Expectation:
    """What the client's sidecar sends meets what the port takes."""
    because = (*because, f"the client's sidecar sends {sends}")
    match sends:
        case "mtls":
            return Expectation(outcome=Outcome.REFUSED if mode is Mode.UNENFORCED else Outcome.MTLS, because=because)
        case "plaintext":
            return Expectation(outcome=Outcome.REFUSED if mode is Mode.STRICT else Outcome.PLAINTEXT, because=because)
        case "tls":
            return Expectation(outcome=Outcome.REFUSED, because=because)
        case "none":
            return Expectation(outcome=Outcome.UNREACHABLE, because=because)
        case _:
            return Expectation(outcome=None, because=because)
