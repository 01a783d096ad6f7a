"""The test CA, its leaves and its refusals."""

import datetime
import random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from meshtls.errors import InputError
from meshtls.pki import flaws, workload
from meshtls.pki.authority import LIFETIME, Authority, is_marked, refuse_mesh_root
from meshtls.pki.identity import Identity, parse

NOW = datetime.datetime(2030, 1, 1, 12, tzinfo=datetime.UTC)
WHO = Identity("cluster.local", "shop", "cart")
HOUR = datetime.timedelta(hours=1)


def chance(seed=1):
    return random.Random(seed).randbytes


def new(seed=1, **options):
    return Authority.new(NOW, LIFETIME, chance(seed), **options)


def names(certificate):
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def test_everything_is_marked_and_short_lived():
    authority = new()
    good = workload.issue(authority, WHO, NOW, chance(2)).certificate()
    flawed = [flaw.make(flaws.Order(authority, WHO, NOW, chance(3))).certificate() for flaw in flaws.FLAWS]
    for one in (authority.certificate, good, *flawed):
        assert is_marked(one.subject)
        assert one.not_valid_after_utc - one.not_valid_before_utc <= HOUR + datetime.timedelta(minutes=1)


def test_time_and_randomness_are_arguments():
    def body(pair):
        return pair.key_pem, pair.certificate().tbs_certificate_bytes

    assert body(new(5).pair()) == body(new(5).pair()) != body(new(6).pair())
    assert body(workload.issue(new(), WHO, NOW, chance(2))) == body(workload.issue(new(), WHO, NOW, chance(2)))


def test_a_leaf_names_its_workload_and_nothing_else():
    leaf = workload.issue(new(), WHO, NOW, chance(2)).certificate()
    assert list(names(leaf)) == [x509.UniformResourceIdentifier("spiffe://cluster.local/ns/shop/sa/cart")]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    leaf.verify_directly_issued_by(new().certificate)


def test_a_leaf_never_outlives_its_ca():
    late = NOW + datetime.timedelta(minutes=50)
    assert workload.issue(new(), WHO, late, chance(2)).certificate().not_valid_after_utc == NOW + HOUR
    with pytest.raises(InputError, match="the test CA ended at 2030-01-01T13:00:00Z"):
        workload.issue(new(), WHO, NOW + HOUR, chance(2))


@pytest.mark.parametrize("life", [datetime.timedelta(0), -HOUR, 25 * HOUR])
def test_lifetimes_are_bounded(life):
    with pytest.raises(InputError, match="is not allowed"):
        Authority.new(NOW, life, chance())


def test_a_ca_that_looks_like_the_meshs_is_refused_by_name_and_by_key():
    mesh = new(7).certificate
    with pytest.raises(InputError, match="mesh root's name"):
        refuse_mesh_root(new(8, name=mesh.subject), [mesh])
    renamed = new(7, name=x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "cluster.local")])).certificate
    with pytest.raises(InputError, match="mesh root's key"):
        refuse_mesh_root(new(7), [renamed])
    refuse_mesh_root(new(9), [mesh])


def test_only_our_own_cas_are_loaded():
    pair = new().pair()
    assert Authority.load(pair.certificate_pem.encode(), pair.key_pem.encode()).certificate == pair.certificate()
    foreign = new(2, name=x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "cluster.local")])).pair()
    for certificate, key, why in (
        (foreign.certificate_pem, foreign.key_pem, "O=cluster.local is no test CA of meshtls"),
        (pair.certificate_pem, new(3).pair().key_pem, "does not belong"),
        ("nonsense", pair.key_pem, "cannot be read"),
        (pair.certificate_pem, "nonsense", "cannot be read"),
    ):
        with pytest.raises(InputError, match=why):
            Authority.load(certificate.encode(), key.encode())


def test_each_flaw_is_one_flaw():
    """What sets a flawed leaf apart from the good one, field by field."""
    authority = new()
    good = workload.issue(authority, WHO, NOW, chance(2)).certificate()

    def differs(flawed):
        def signed(one):
            try:
                one.verify_directly_issued_by(authority.certificate)
            except Exception:
                return False
            return True

        fields = {
            "issuer": lambda one: one.issuer,
            "signature": signed,
            "time": lambda one: (one.not_valid_before_utc, one.not_valid_after_utc),
            "names": lambda one: list(names(one)),
            "uses": lambda one: one.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value,
        }
        return [name for name, read in fields.items() if read(flawed) != read(good)]

    found = {
        flaw.name: differs(flaw.make(flaws.Order(authority, WHO, NOW, chance(3))).certificate()) for flaw in flaws.FLAWS
    }
    assert found == {
        "unknown-ca": ["issuer", "signature"],
        "same-named-ca": ["signature"],
        "expired": ["time"],
        "not-yet-valid": ["time"],
        "wrong-trust-domain": ["names"],
        "no-spiffe-name": ["names"],
        "wrong-use": ["uses"],
    }


def test_an_unknown_flaw_names_the_known_ones():
    with pytest.raises(InputError, match="unknown-ca, same-named-ca, expired"):
        flaws.find("exired")


def test_keys_are_pkcs8_on_p256():
    key = serialization.load_pem_private_key(new().pair().key_pem.encode(), None)
    assert key.curve.name == "secp256r1"


@pytest.mark.parametrize(
    "text",
    ["spiffe://cluster.local/ns/a/sa/b", "spiffe://td.example/ns/a-1/sa/robot.account", "spiffe://x/ns/0/sa/default"],
)
def test_identities_read_as_they_are_written(text):
    assert str(parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "cluster.local/ns/a/sa/b", "spiffe://cluster.local/ns/a/sa", "spiffe:///ns/a/sa/b", "spiffe://td/ns/A/sa/b", "spiffe://td/sa/b/ns/a",
     "spiffe://td/ns/a/sa/b/", "spiffe://td/ns/a b/sa/c", "spiffe://td/ns/a/sa/b\n", "https://td/ns/a/sa/b", "spiffe://td/ns/" + "a" * 64 + "/sa/b"],
)  # fmt: skip
def test_what_is_no_identity_is_said_in_one_line(text):
    with pytest.raises(InputError, match="is no Istio identity") as caught:
        parse(text)
    assert "\n" not in str(caught.value)
