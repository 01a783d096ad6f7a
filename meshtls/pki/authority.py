"""A test CA and what it signs. Pure: the time and the source of randomness are arguments.

Laws:
  1. Everything is marked: the CA's and the leaves' subject is O=meshtls test. Nothing lives longer than 24 hours, 1
     hour unless asked, and no leaf outlives its CA.
  2. It is never the mesh's own CA. `refuse_mesh_root` rejects a CA that has the name or the key of a given mesh root,
     and nothing here asks for a mesh's CA key (the Secret cacerts, istio-ca-secret).
  3. A leaf looks as istiod's look, apart from the mark: P-256, one URI name, server and client use.
"""

import datetime
from collections.abc import Callable, Sequence

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from meshtls.errors import InputError

MARK = "meshtls test"
LIFETIME = datetime.timedelta(hours=1)
LONGEST = datetime.timedelta(hours=24)
SKEW = datetime.timedelta(minutes=1)
"""How long before `now` a certificate begins, for clocks that disagree."""

Random = Callable[[int], bytes]
"""That many random bytes, such as secrets.token_bytes."""

BOTH_USES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)

_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


class Pair(msgspec.Struct, frozen=True):
    """A certificate with its key, both PEM. The key is not encrypted."""

    certificate_pem: str
    key_pem: str

    def certificate(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.certificate_pem.encode())


class Span(msgspec.Struct, frozen=True):
    """From when to when a certificate is valid, both UTC."""

    begins: datetime.datetime
    ends: datetime.datetime


def span(now: datetime.datetime, life: datetime.timedelta) -> Span:
    """A validity that starts now. Raises InputError for a lifetime that is none, or longer than a test certificate
    may live."""
    if not datetime.timedelta(0) < life <= LONGEST:
        raise InputError(
            f"a lifetime of {life} is not allowed",
            "test certificates live for 24h at most; choose a shorter --lifetime",
        )
    return Span(now - SKEW, now + life)


class Authority:
    """A CA in memory: its certificate and its key."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = certificate
        self._key = key

    @classmethod
    def new(
        cls, now: datetime.datetime, life: datetime.timedelta, random: Random, *, name: x509.Name | None = None
    ) -> "Authority":
        """A self-signed CA. `name` replaces the marked name, for a CA that only looks like another and is never
        written."""
        key = _new_key(random)
        mark = [_organisation(), x509.NameAttribute(NameOID.COMMON_NAME, f"meshtls test CA {random(4).hex()}")]
        subject = x509.Name(mark) if name is None else name
        usage = _usage(signs_certificates=True)
        builder = _builder(subject, subject, key, span(now, life), random)
        certificate = (
            builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def load(cls, certificate_pem: bytes, key_pem: bytes) -> "Authority":
        """A test CA from its files. Raises InputError if they are no CA of ours, or do not belong together."""
        try:
            certificate = x509.load_pem_x509_certificate(certificate_pem)
            key = serialization.load_pem_private_key(key_pem, password=None)
        except (ValueError, TypeError) as error:
            raise InputError(
                f"the CA's certificate or key cannot be read: {error}", "make one with `meshtls pki ca`"
            ) from error
        if _organisation() not in certificate.subject:
            who = certificate.subject.rfc4514_string() or "(no subject)"
            raise InputError(
                f"{who} is no test CA of meshtls",
                "meshtls signs only with its own test CAs; make one with `meshtls pki ca`",
            )
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise InputError("the CA's key does not belong to its certificate", "make a new pair with `meshtls pki ca`")
        return cls(certificate, key)

    def pair(self) -> Pair:
        """The CA itself, to be kept in files."""
        return _pair(self.certificate, self._key)

    def issue(
        self,
        names: Sequence[x509.GeneralName],
        validity: Span,
        random: Random,
        *,
        uses: Sequence[x509.ObjectIdentifier] = BOTH_USES,
    ) -> Pair:
        """A marked leaf with these subject alternative names."""
        key = _new_key(random)
        builder = _builder(x509.Name([_organisation()]), self.certificate.subject, key, validity, random)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return _pair(
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(authority_key, critical=False)
            .sign(self._key, hashes.SHA256()),
            key,
        )

    def life(self, now: datetime.datetime, life: datetime.timedelta) -> Span:
        """A leaf's validity, no longer than the CA's. Raises InputError if the CA has ended."""
        end = self.certificate.not_valid_after_utc
        if end <= now:
            raise InputError(
                f"the test CA ended at {end:%Y-%m-%dT%H:%M:%SZ}", "make a new one with `meshtls pki ca --force`"
            )
        asked = span(now, life)
        return Span(asked.begins, min(asked.ends, end))


def refuse_mesh_root(authority: Authority, roots: Sequence[x509.Certificate]) -> None:
    """Raise InputError if the CA has the name or the key of one of the mesh's roots."""
    for root in roots:
        if authority.certificate.subject == root.subject:
            raise InputError(
                f"the CA would have the mesh root's name, {root.subject.rfc4514_string()}",
                "a test CA must never pass for the mesh's own",
            )
        if _public(authority.certificate) == _public(root):
            raise InputError(
                "the CA has the mesh root's key", "meshtls never signs with a mesh's own key; make a new CA"
            )


def is_marked(name: x509.Name) -> bool:
    """Whether a subject or issuer carries our mark."""
    return _organisation() in name


def _public(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _organisation() -> x509.NameAttribute[str]:
    return x509.NameAttribute(NameOID.ORGANIZATION_NAME, MARK)


def _new_key(random: Random) -> ec.EllipticCurvePrivateKey:
    # 64 bits more than the order has: the remainder is uniform for all that matters (FIPS 186-5, A.2.1)
    secret = int.from_bytes(random(40)) % (_P256_ORDER - 1) + 1
    return ec.derive_private_key(secret, ec.SECP256R1())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, validity: Span, random: Random
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(int.from_bytes(random(20)) >> 1 or 1)
        .not_valid_before(validity.begins)
        .not_valid_after(validity.ends)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_encipherment=not signs_certificates,
        key_cert_sign=signs_certificates,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Pair(certificate.public_bytes(pem).decode(), private.decode())
