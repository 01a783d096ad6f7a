"""The lab's own certificate authority: what istiod's is in a mesh. One P-256 root per lab, leaves that name a service account.

A leaf looks as istiod makes it: empty subject, one critical URI name spiffe://<trust domain>/ns/<namespace>/sa/<account>, 24 hours, both
server and client. The key never leaves the lab's memory except to the Envoy it is for. Times are arguments: nothing here asks the clock.
"""
import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFE = datetime.timedelta(hours=24)
ROOT_LIFE = datetime.timedelta(days=3650)
SKEW = datetime.timedelta(minutes=2)


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()


class Authority:
    """A root and what it signs. `trust_domain` is the root's organisation, as istiod's self-signed one has it."""

    def __init__(self, now: datetime.datetime, trust_domain: str = "cluster.local") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, trust_domain)])
        usage = x509.KeyUsage(digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
                              key_agreement=False, key_cert_sign=True, crl_sign=False, encipher_only=False, decipher_only=False)
        root = (x509.CertificateBuilder().subject_name(self._name).issuer_name(self._name).public_key(self._key.public_key())
                .serial_number(x509.random_serial_number()).not_valid_before(now - SKEW).not_valid_after(now + ROOT_LIFE)
                .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).add_extension(usage, critical=True)
                .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
                .sign(self._key, hashes.SHA256()))
        self.root_pem = root.public_bytes(serialization.Encoding.PEM).decode()

    def issue(self, identity: str, now: datetime.datetime, life: datetime.timedelta = LIFE) -> tuple[str, str]:
        """A certificate chain and its key, both PEM."""
        return self._leaf(x509.Name([]), [x509.UniformResourceIdentifier(identity)], now, life)

    def issue_server(self, names: list[x509.GeneralName], now: datetime.datetime) -> tuple[str, str]:
        """A certificate for a server of the lab's own (its API)."""
        return self._leaf(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "meshtls-lab")]), names, now, ROOT_LIFE)

    def _leaf(self, subject: x509.Name, names: list[x509.GeneralName], now: datetime.datetime, life: datetime.timedelta) -> tuple[str, str]:
        key = ec.generate_private_key(ec.SECP256R1())
        usage = x509.KeyUsage(digital_signature=True, content_commitment=False, key_encipherment=True, data_encipherment=False,
                              key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False)
        leaf = (x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key.public_key())
                .serial_number(x509.random_serial_number()).not_valid_before(now - SKEW).not_valid_after(now + life)
                .add_extension(x509.SubjectAlternativeName(names), critical=not list(subject)).add_extension(usage, critical=True)
                .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
                .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
                .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
                .sign(self._key, hashes.SHA256()))
        return leaf.public_bytes(serialization.Encoding.PEM).decode(), _pem(key)
