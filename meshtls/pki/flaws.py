"""Certificates that a mesh must refuse, each with exactly one flaw. Pure.

Against a server that trusts the test CA each flaw is the only reason for a refusal. Against a real mesh every one of
them is of an unknown CA as well, and that is what the proxy says. What Envoy answers is measured on Envoy 1.40 with
Istio's inbound TLS settings: `alerts` are the reasons of Python's ssl.SSLError, in the handshake with TLS 1.2, at the
first read with TLS 1.3; a reset or an end of file may stand in for the alert in TLS 1.3.
"""

import datetime
from collections.abc import Callable

import msgspec
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from meshtls.errors import InputError
from meshtls.pki import workload
from meshtls.pki.authority import LIFETIME, Authority, Pair, Random, Span
from meshtls.pki.identity import Identity


class Order(msgspec.Struct, frozen=True):
    """What every flaw is made from. `mesh_root` is the root to be imitated by name; the test CA where it is None."""

    authority: Authority
    identity: Identity
    now: datetime.datetime
    random: Random
    mesh_root: x509.Certificate | None = None

    def life(self) -> Span:
        return self.authority.life(self.now, LIFETIME)


class Flaw(msgspec.Struct, frozen=True):
    """One way to be wrong: its name, what is wrong, how Envoy refuses it, and how it is made."""

    name: str
    what: str
    alerts: tuple[str, ...]
    make: Callable[[Order], Pair]


def issue(name: str, order: Order) -> Pair:
    """The flawed certificate of that name. Raises InputError for an unknown name."""
    return find(name).make(order)


def find(name: str) -> Flaw:
    """The flaw of that name. Raises InputError."""
    for flaw in FLAWS:
        if flaw.name == name:
            return flaw
    raise InputError(f"there is no flaw {name!r}", f"one of: {', '.join(flaw.name for flaw in FLAWS)}")


def _unknown_ca(order: Order) -> Pair:
    stranger = Authority.new(order.now, LIFETIME, order.random)
    return stranger.issue(workload.names(order.identity), stranger.life(order.now, LIFETIME), order.random)


def _same_named_ca(order: Order) -> Pair:
    imitated = (order.mesh_root or order.authority.certificate).subject
    # this authority ends with the call: its key is never written, so nothing else can be signed with it
    impostor = Authority.new(order.now, LIFETIME, order.random, name=imitated)
    return impostor.issue(workload.names(order.identity), impostor.life(order.now, LIFETIME), order.random)


def _expired(order: Order) -> Pair:
    ended = Span(order.now - datetime.timedelta(hours=2), order.now - datetime.timedelta(hours=1))
    return order.authority.issue(workload.names(order.identity), ended, order.random)


def _not_yet_valid(order: Order) -> Pair:
    later = Span(order.now + datetime.timedelta(hours=1), order.now + datetime.timedelta(hours=2))
    return order.authority.issue(workload.names(order.identity), later, order.random)


def _wrong_trust_domain(order: Order) -> Pair:
    foreign = msgspec.structs.replace(order.identity, trust_domain=f"not-{order.identity.trust_domain}")
    return order.authority.issue(workload.names(foreign), order.life(), order.random)


def _no_spiffe_name(order: Order) -> Pair:
    host = f"{order.identity.account}.{order.identity.namespace}.svc"
    return order.authority.issue([x509.DNSName(host)], order.life(), order.random)


def _wrong_use(order: Order) -> Pair:
    uses = (ExtendedKeyUsageOID.CODE_SIGNING,)
    return order.authority.issue(workload.names(order.identity), order.life(), order.random, uses=uses)


_UNKNOWN = ("TLSV1_ALERT_UNKNOWN_CA",)
_EXPIRED = ("SSLV3_ALERT_CERTIFICATE_EXPIRED",)
_NAME = ("SSLV3_ALERT_CERTIFICATE_UNKNOWN",)

FLAWS = (
    Flaw("unknown-ca", "signed by a CA that nobody trusts", _UNKNOWN, _unknown_ca),
    Flaw("same-named-ca", "signed by a CA that only has the trusted CA's name", _UNKNOWN, _same_named_ca),
    Flaw("expired", "ended an hour ago", _EXPIRED, _expired),
    Flaw("not-yet-valid", "begins in an hour", _EXPIRED, _not_yet_valid),
    Flaw("wrong-trust-domain", "names a workload of another trust domain", _NAME, _wrong_trust_domain),
    Flaw("no-spiffe-name", "names a DNS host and no workload", _NAME, _no_spiffe_name),
    Flaw("wrong-use", "is for code signing, not for TLS", ("SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",), _wrong_use),
)
