"""The nouns of probing: who asks (Client), what it brings (Offer), whom it asks (Server, Port), what came of it.

`Outcome` is closed.  Unknown has names of its own: STALLED (connected, and neither an answer nor an end came), UNREACHABLE
(no connection) and NOT_RUN (nothing was measured, or nothing shows how the bytes travelled).  None of them is a refusal.
"""

import enum

import msgspec


class Outcome(enum.StrEnum):
    """What came of one offer."""

    MTLS = "MTLS"
    TLS = "TLS"
    PLAINTEXT = "PLAINTEXT"
    REFUSED = "REFUSED"
    UNREACHABLE = "UNREACHABLE"
    STALLED = "STALLED"
    NOT_RUN = "NOT_RUN"


class Mode(enum.StrEnum):
    """What a port enforces on inbound connections. UNENFORCED: DISABLE, or no sidecar takes the connection."""

    STRICT = "STRICT"
    PERMISSIVE = "PERMISSIVE"
    UNENFORCED = "NOT ENFORCED"
    UNKNOWN = "UNKNOWN"


class Port(msgspec.Struct, frozen=True, kw_only=True):
    """A port of a server. `protocol`: "http" or "tcp" as the mesh sees it by its name, "" where no Service names it."""

    number: int
    protocol: str = ""


# The echo server's ports, and the names that its Service gives them.
HTTP = Port(number=8080, protocol="http")
TCP = Port(number=9000, protocol="tcp")
BANNER = Port(number=9001, protocol="tcp")
PORT_NAMES = {HTTP: "http-echo", TCP: "tcp-echo", BANNER: "tcp-banner"}


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What a client brings. `do`, `alpn` and `cert` are the agent's words; `meshed`/`naked`: who can make it; `ports`: where."""

    name: str
    title: str
    do: str
    alpn: tuple[str, ...] = ()
    cert: str = ""
    by_service: bool = False
    meshed: bool = False
    naked: bool = True
    ports: tuple[Port, ...] = (HTTP, TCP)


# A TLS offer of a client behind a sidecar is wrapped or judged by its own sidecar and says nothing of the server, so it
# is not made; a client without sidecar cannot do mTLS with a mesh identity.
ISTIO_ALPN = ("istio-http/1.1", "istio", "http/1.1")
_ALL = (
    Offer(name="plaintext", title="plaintext", do="plaintext", meshed=True),
    Offer(name="tls", title="TLS, no cert", do="tls"),
    Offer(name="tls-istio", title="TLS, Istio's ALPN", do="tls", alpn=ISTIO_ALPN),
    Offer(name="unknown-ca", title="TLS, unknown CA", do="tls", alpn=ISTIO_ALPN, cert="unknown-ca"),
    Offer(name="same-named-ca", title="TLS, same-named CA", do="tls", alpn=ISTIO_ALPN, cert="same-named-ca"),
    Offer(name="expired", title="TLS, expired", do="tls", alpn=ISTIO_ALPN, cert="expired"),
    Offer(name="not-yet-valid", title="TLS, not yet valid", do="tls", alpn=ISTIO_ALPN, cert="not-yet-valid"),
    Offer(name="wrong-trust-domain", title="TLS, wrong trust domain", do="tls", alpn=ISTIO_ALPN, cert="wrong-trust-domain"),
    Offer(name="no-spiffe-name", title="TLS, no SPIFFE name", do="tls", alpn=ISTIO_ALPN, cert="no-spiffe-name"),
    Offer(name="wrong-use", title="TLS, wrong use", do="tls", alpn=ISTIO_ALPN, cert="wrong-use"),
    Offer(name="server-first", title="server speaks first", do="silence", ports=(BANNER,)),
    Offer(name="mtls", title="mTLS", do="plaintext", by_service=True, meshed=True, naked=False),
)  # fmt: skip
OFFERS: dict[str, Offer] = {offer.name: offer for offer in _ALL}
DEFAULT_OFFERS = ("plaintext", "tls", "unknown-ca", "mtls")


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """An agent pod of ours."""

    namespace: str
    meshed: bool

    @property
    def title(self) -> str:
        return f"{self.namespace} {side(self.meshed)}"

    @property
    def short(self) -> str:
        return "agent-meshed" if self.meshed else "agent-naked"


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """An echo pod of ours."""

    namespace: str
    meshed: bool

    @property
    def title(self) -> str:
        return f"{self.namespace} {side(self.meshed)}"

    @property
    def short(self) -> str:
        return "echo-meshed" if self.meshed else "echo-naked"


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A port of a pod that was there before: it gets two handshakes and no byte of payload.

    `workload` is `Kind/namespace/name`; `mode` what the policies say it enforces, with the deciding facts in `because`.
    """

    namespace: str
    pod: str
    workload: str
    address: str
    port: Port
    mode: Mode
    because: tuple[str, ...] = ()
    ambient: bool = False

    @property
    def title(self) -> str:
        return f"{self.namespace}/{self.pod}:{self.port.number}"


class Expectation(msgspec.Struct, frozen=True, kw_only=True):
    """What should come of a case. `outcome` None: not known, and `because` says why. `mesh_cert`: a mesh certificate is shown."""

    outcome: Outcome | None
    because: tuple[str, ...] = ()
    mesh_cert: bool | None = None


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One question: `offer` of `client` to `port` of `server`. `id` is unique in a run."""

    id: str
    client: Client
    server: Server
    port: Port
    offer: Offer


class Handshake(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two payload-free handshakes with a target, or (`ambient`) the connection on which nothing is sent."""

    id: str
    client: Client
    target: Target
    kind: str


def side(meshed: bool) -> str:
    return "meshed" if meshed else "bare"
