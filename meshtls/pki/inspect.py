"""Whose certificate is this: what its fields say, and in words. Pure; the time is an argument.

Laws:
  1. Saying is not proving: a name in a certificate is a claim, and `trusted` is True only where a given root has
     signed it (its chain, if the chain is in the same input). Without roots `trusted` is None: not asked.
  2. Input is bounded (1 MiB, 32 certificates), and what it says is shown escaped. Private keys in the input are left
     unread.
"""

import datetime
import re
from collections.abc import Sequence
from typing import TypeVar

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from meshtls.errors import InputError
from meshtls.pki import identity
from meshtls.pki.authority import is_marked

LARGEST = 1 << 20
MOST = 32
Kind = TypeVar("Kind", bound=x509.ExtensionType)
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


class Facts(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """What one certificate says. `kind`: workload, ca, test, server or other; times are UTC, RFC 3339."""

    kind: str
    words: str
    subject: str
    issuer: str
    not_before: str
    not_after: str
    serial: str
    sha256: str
    key: str
    uris: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    ca: bool = False
    trust_domain: str = ""
    namespace: str = ""
    account: str = ""
    trusted: bool | None = None
    problems: tuple[str, ...] = ()


def load(data: bytes) -> list[x509.Certificate]:
    """The certificates in PEM or DER. Raises InputError when there are none, too many, or one cannot be read."""
    if len(data) > LARGEST:
        raise InputError(f"more than {LARGEST} bytes is no certificate", "give one certificate or chain")
    blocks = _PEM.findall(data)
    if len(blocks) > MOST:
        raise InputError(f"{len(blocks)} certificates are too many", f"at most {MOST} are read at once")
    try:
        if blocks:
            return [x509.load_pem_x509_certificate(block) for block in blocks]
        if b"-----BEGIN" in data:
            raise InputError(
                "there is no certificate in this PEM", "give the file that holds -----BEGIN CERTIFICATE-----"
            )
        return [x509.load_der_x509_certificate(data)]
    except ValueError as error:
        raise InputError("this is no certificate that can be read", "give a certificate in PEM or DER") from error


def inspect(
    certificates: Sequence[x509.Certificate], now: datetime.datetime, roots: Sequence[x509.Certificate] = ()
) -> tuple[Facts, ...]:
    """Facts of each certificate, in order. Raises InputError for one whose extensions cannot be read."""
    try:
        return tuple(_facts(one, now, certificates, roots) for one in certificates)
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise InputError(
            f"a certificate's extensions cannot be read: {_shown(str(error))}", "it breaks RFC 5280"
        ) from error


def _facts(
    certificate: x509.Certificate,
    now: datetime.datetime,
    chain: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
) -> Facts:
    names = _extension(certificate, x509.SubjectAlternativeName)
    uris = tuple(map(_shown, names.get_values_for_type(x509.UniformResourceIdentifier))) if names else ()
    dns = tuple(map(_shown, names.get_values_for_type(x509.DNSName))) if names else ()
    addresses = tuple(map(str, names.get_values_for_type(x509.IPAddress))) if names else ()
    constraints, uses = _extension(certificate, x509.BasicConstraints), _extension(certificate, x509.ExtendedKeyUsage)
    is_ca = bool(constraints and constraints.ca)
    whose = _identity(uris)
    test = is_marked(certificate.subject) or is_marked(certificate.issuer)
    kind = "test" if test else "ca" if is_ca else "workload" if whose else "server" if dns or addresses else "other"
    trusted = _is_trusted(certificate, chain, roots) if roots else None
    facts = Facts(
        kind=kind,
        words="",
        subject=_shown(certificate.subject.rfc4514_string()),
        issuer=_shown(certificate.issuer.rfc4514_string()),
        not_before=f"{certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}",
        not_after=f"{certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
        serial=f"{certificate.serial_number:x}",
        sha256=certificate.fingerprint(hashes.SHA256()).hex(),
        key=_key(certificate),
        uris=uris,
        dns=dns,
        addresses=addresses,
        uses=tuple(getattr(use, "_name", use.dotted_string) for use in uses) if uses else (),
        ca=is_ca,
        trust_domain=whose.trust_domain if whose else "",
        namespace=whose.namespace if whose else "",
        account=whose.account if whose else "",
        trusted=trusted,
        problems=_problems(certificate, now, uris, whose, is_ca, trusted),
    )
    return msgspec.structs.replace(facts, words=_words(facts, certificate, now))


def _extension(certificate: x509.Certificate, kind: type[Kind]) -> Kind | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _identity(uris: Sequence[str]) -> identity.Identity | None:
    # Istio takes a peer for a workload only when it has exactly one URI name
    if len(uris) != 1:
        return None
    try:
        return identity.parse(uris[0])
    except InputError:
        return None


def _is_trusted(
    certificate: x509.Certificate, chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate]
) -> bool:
    """Whether a path of signatures leads from the certificate over CAs of the same input to one of the roots."""
    current = certificate
    for _ in range(len(chain) + 1):
        if current in roots or any(_signed(current, root) for root in roots):
            return True
        above = [one for one in chain if one != current and _is_ca(one) and _signed(current, one)]
        if not above:
            return False
        current = above[0]
    return False


def _is_ca(certificate: x509.Certificate) -> bool:
    constraints = _extension(certificate, x509.BasicConstraints)
    return bool(constraints and constraints.ca)


def _signed(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _problems(
    certificate: x509.Certificate,
    now: datetime.datetime,
    uris: Sequence[str],
    whose: identity.Identity | None,
    is_ca: bool,
    trusted: bool | None,
) -> tuple[str, ...]:
    found = []
    if now > certificate.not_valid_after_utc:
        found.append(f"it ended {_ago(now - certificate.not_valid_after_utc)} ago")
    if now < certificate.not_valid_before_utc:
        found.append(f"it begins only in {_ago(certificate.not_valid_before_utc - now)}")
    if trusted is False:
        found.append("none of the given roots has signed it")
    if not is_ca and whose is None and any(uri.startswith("spiffe://") for uri in uris):
        found.append(
            "its SPIFFE name is not one that Istio writes"
            if len(uris) == 1
            else "it has more than one URI name; Istio takes exactly one"
        )
    return tuple(found)


def _words(facts: Facts, certificate: x509.Certificate, now: datetime.datetime) -> str:
    whose = f"service account {facts.account} in namespace {facts.namespace}, trust domain {facts.trust_domain}"
    match facts.kind:
        case "workload":
            what = f"A workload's certificate: {whose}."
        case "test" if facts.ca:
            what = "A test CA of meshtls."
        case "test":
            what = f"A test certificate of meshtls, for {whose}." if facts.account else "A test certificate of meshtls."
        case "ca":
            what = f"A CA: {facts.subject or '(no subject)'}."
        case "server":
            what = f"An ordinary server's certificate, no workload's: {', '.join((facts.dns + facts.addresses)[:5])}."
        case _:
            what = "A certificate that names no workload and no server."
    signer = "itself" if certificate.subject == certificate.issuer else facts.issuer or "(no issuer)"
    left = certificate.not_valid_after_utc - now
    is_in_time = certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc
    time = f"valid for another {_ago(left)}" if is_in_time else f"valid until {facts.not_after}"
    trust = " A given root has signed it." if facts.trusted else ""
    problems = "".join(f" But {one}." for one in facts.problems)
    return f"{what} Signed by {signer}, {time}.{trust}{problems}"


def _ago(time: datetime.timedelta) -> str:
    minutes = int(time.total_seconds()) // 60
    if minutes >= 2 * 24 * 60:
        return f"{minutes // (24 * 60)} days"
    return (
        f"{minutes // 60} h {minutes % 60} min"
        if minutes >= 60
        else f"{minutes} min"
        if minutes
        else f"{int(time.total_seconds())} s"
    )


def _key(certificate: x509.Certificate) -> str:
    match certificate.public_key():
        case ec.EllipticCurvePublicKey() as key:
            return f"EC {key.curve.name}"
        case rsa.RSAPublicKey() as key:
            return f"RSA {key.key_size}"
        case key:
            return type(key).__name__.removesuffix("PublicKey").strip("_")


def _shown(text: str) -> str:
    """Text from outside, with what a terminal would act upon escaped, and cut."""
    escaped = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    return escaped if len(escaped) <= 300 else escaped[:300] + "..."
