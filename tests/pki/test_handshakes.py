"""Every flaw in a real handshake (OpenSSL, TLS 1.2 and 1.3) with a server that trusts the test CA."""

import datetime
import secrets
import ssl

import pytest

from meshtls.pki import workload
from meshtls.pki.authority import LIFETIME, Authority
from meshtls.pki.flaws import FLAWS, Order, issue
from meshtls.pki.identity import Identity
from tests.pki.handshake import Outcome, meet

WHO = Identity("cluster.local", "shop", "cart")
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]

# OpenSSL's own words; a server that is not Envoy checks no SPIFFE name by itself, so the two flaws of the name are let in and shown
REFUSED = {
    "unknown-ca": Outcome("CERTIFICATE_VERIFY_FAILED", "TLSV1_ALERT_UNKNOWN_CA"),
    "same-named-ca": Outcome("CERTIFICATE_VERIFY_FAILED", "TLSV1_ALERT_UNKNOWN_CA"),
    "expired": Outcome("CERTIFICATE_VERIFY_FAILED", "SSLV3_ALERT_CERTIFICATE_EXPIRED"),
    "not-yet-valid": Outcome("CERTIFICATE_VERIFY_FAILED", "SSLV3_ALERT_BAD_CERTIFICATE"),
    "wrong-use": Outcome("CERTIFICATE_VERIFY_FAILED", "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE"),
    "wrong-trust-domain": Outcome("", "", (("URI", "spiffe://not-cluster.local/ns/shop/sa/cart"),)),
    "no-spiffe-name": Outcome("", "", (("DNS", "cart.shop.svc"),)),
}


@pytest.fixture(scope="module")
def now():
    # OpenSSL asks the machine's clock
    return datetime.datetime.now(datetime.UTC)


@pytest.fixture(scope="module")
def authority(now):
    return Authority.new(now, LIFETIME, secrets.token_bytes)


def test_every_flaw_has_its_row():
    assert REFUSED.keys() == {flaw.name for flaw in FLAWS}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_good_certificate_is_let_in_with_its_name(tmp_path, authority, now, version):
    good = workload.issue(authority, WHO, now, secrets.token_bytes)
    assert meet(tmp_path, authority, good, version) == Outcome("", "", (("URI", str(WHO)),))


@pytest.mark.parametrize("version", VERSIONS)
def test_no_certificate_is_refused(tmp_path, authority, version):
    alert = {
        ssl.TLSVersion.TLSv1_2: "SSLV3_ALERT_HANDSHAKE_FAILURE",
        ssl.TLSVersion.TLSv1_3: "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    }
    assert meet(tmp_path, authority, None, version) == Outcome("PEER_DID_NOT_RETURN_A_CERTIFICATE", alert[version])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", [flaw.name for flaw in FLAWS])
def test_each_flaw_meets_the_alert_of_its_own(tmp_path, authority, now, name, version):
    flawed = issue(name, Order(authority, WHO, now, secrets.token_bytes))
    assert meet(tmp_path, authority, flawed, version) == REFUSED[name]


def test_a_ca_with_the_mesh_roots_name_is_refused_by_who_trusts_the_mesh_root(tmp_path, now):
    mesh = Authority.new(now, LIFETIME, secrets.token_bytes)
    test = Authority.new(now, LIFETIME, secrets.token_bytes)
    flawed = issue("same-named-ca", Order(test, WHO, now, secrets.token_bytes, mesh.certificate))
    assert flawed.certificate().issuer == mesh.certificate.subject
    assert meet(tmp_path, mesh, flawed, ssl.TLSVersion.TLSv1_3) == REFUSED["same-named-ca"]
