"""Whose certificate is this."""

import datetime
import random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from meshtls.errors import InputError
from meshtls.pki import flaws, workload
from meshtls.pki.authority import LIFETIME, Authority
from meshtls.pki.identity import Identity
from meshtls.pki.inspect import LARGEST, inspect, load

NOW = datetime.datetime(2030, 1, 1, 12, tzinfo=datetime.UTC)
WHO = Identity("cluster.local", "shop", "cart")
DAY = datetime.timedelta(days=1)


def certificate(
    *names, subject="", issuer="O=cluster.local", ca=False, key=None, begins=NOW - DAY, life=2 * DAY, signer=None
):
    """Any certificate, self-signed unless a signer's key is given."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name.from_rfc4514_string(subject))
        .issuer_name(x509.Name.from_rfc4514_string(issuer))
        .public_key(key.public_key())
        .serial_number(4711)
        .not_valid_before(begins)
        .not_valid_after(begins + life)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    return builder.sign(signer or key, hashes.SHA256())


def one(found, **options):
    [facts] = inspect([found], NOW, **options)
    return facts


def uri(text):
    return x509.UniformResourceIdentifier(text)


def test_a_workloads_certificate_is_read_and_told_in_words():
    facts = one(certificate(uri(str(WHO))))
    assert (facts.kind, facts.trust_domain, facts.namespace, facts.account) == (
        "workload",
        "cluster.local",
        "shop",
        "cart",
    )
    assert facts.words == ("A workload's certificate: service account cart in namespace shop, trust domain cluster.local. "
                           "Signed by O=cluster.local, valid for another 24 h 0 min.")  # fmt: skip
    assert (facts.serial, facts.key, facts.not_after, facts.trusted) == (
        "1267",
        "EC secp256r1",
        "2030-01-02T12:00:00Z",
        None,
    )


@pytest.mark.parametrize(
    ("made", "kind", "words"),
    [
        (certificate(x509.DNSName("db.example"), subject="CN=db", issuer="CN=Corp CA"), "server", "An ordinary server's certificate, no workload's: db.example."),
        (certificate(subject="O=cluster.local", ca=True), "ca", "A CA: O=cluster.local. Signed by itself"),
        (certificate(subject="CN=nobody"), "other", "A certificate that names no workload and no server."),
        (certificate(uri("https://example.com")), "other", "A certificate that names no workload"),
    ],
)  # fmt: skip
def test_other_kinds_are_told_apart(made, kind, words):
    facts = one(made)
    assert facts.kind == kind and facts.words.startswith(words)


def test_our_own_are_called_test_certificates():
    authority = Authority.new(NOW, LIFETIME, random.Random(1).randbytes)
    leaf = workload.issue(authority, WHO, NOW, random.Random(2).randbytes).certificate()
    assert one(authority.certificate).words.startswith("A test CA of meshtls.")
    assert one(leaf).words.startswith("A test certificate of meshtls, for service account cart in namespace shop")


def test_a_marked_leaf_of_an_imitated_ca_is_still_a_test_certificate():
    authority = Authority.new(NOW, LIFETIME, random.Random(1).randbytes)
    root = certificate(subject="O=cluster.local", ca=True)
    flawed = flaws.issue(
        "same-named-ca", flaws.Order(authority, WHO, NOW, random.Random(2).randbytes, root)
    ).certificate()
    facts = one(flawed, roots=[root])
    assert facts.kind == "test" and facts.issuer == "O=cluster.local" and facts.trusted is False
    assert facts.problems == ("none of the given roots has signed it",)


@pytest.mark.parametrize(
    ("begins", "life", "problem"),
    [
        (NOW - 3 * DAY, DAY, "it ended 2 days ago"),
        (NOW + datetime.timedelta(minutes=90), DAY, "it begins only in 1 h 30 min"),
        (NOW - DAY, 2 * DAY, ""),
    ],
)
def test_time_is_judged_at_the_given_moment(begins, life, problem):
    facts = one(certificate(uri(str(WHO)), begins=begins, life=life))
    assert facts.problems == ((problem,) if problem else ())
    assert (f"But {problem}." in facts.words) == bool(problem)


def test_a_chain_leads_to_a_root_only_over_cas():
    root_key, middle_key, leaf_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    root = certificate(subject="O=root", issuer="O=root", ca=True, key=root_key)
    middle = certificate(subject="O=middle", issuer="O=root", ca=True, key=middle_key, signer=root_key)
    leaf = certificate(uri(str(WHO)), issuer="O=middle", key=leaf_key, signer=middle_key)
    no_ca = certificate(subject="O=middle", issuer="O=root", key=middle_key, signer=root_key)
    assert [facts.trusted for facts in inspect([leaf, middle], NOW, [root])] == [True, True]
    assert [facts.trusted for facts in inspect([leaf], NOW, [root])] == [False]
    assert [facts.trusted for facts in inspect([leaf, no_ca], NOW, [root])][0] is False


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (
            (uri(str(WHO)), uri("spiffe://cluster.local/ns/a/sa/b")),
            "it has more than one URI name; Istio takes exactly one",
        ),
        ((uri("spiffe://cluster.local/workload/7"),), "its SPIFFE name is not one that Istio writes"),
    ],
)
def test_spiffe_names_that_istio_does_not_take_are_named(names, problem):
    facts = one(certificate(*names))
    assert facts.kind == "other" and facts.problems == (problem,)


def test_pem_chains_der_and_files_with_keys_are_read():
    first, second = certificate(uri(str(WHO))), certificate(subject="O=root", ca=True)
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem = [one.public_bytes(serialization.Encoding.PEM) for one in (first, second)]
    assert load(b"# chain\n" + key + pem[0] + pem[1]) == [first, second]
    assert load(first.public_bytes(serialization.Encoding.DER)) == [first]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no certificate that can be read"),
        (b"\x30\x03abc", "no certificate that can be read"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "no certificate that can be read"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "there is no certificate in this PEM"),
        (b"x" * (LARGEST + 1), "is no certificate"),
        (b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n" * 33, "33 certificates are too many"),
    ],
)
def test_bad_input_is_one_line(data, why):
    with pytest.raises(InputError, match=why) as caught:
        load(data)
    assert "\n" not in str(caught.value)


def test_what_a_terminal_would_act_upon_is_escaped():
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a\x1b[31mb\n")])
    key = ec.generate_private_key(ec.SECP256R1())
    made = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
            .not_valid_before(NOW).not_valid_after(NOW + DAY).sign(key, hashes.SHA256()))  # fmt: skip
    facts = one(made)
    assert facts.subject.isprintable() and facts.words.isprintable()


def test_rsa_keys_show_their_size():
    assert one(certificate(uri(str(WHO)), key=rsa.generate_private_key(65537, 2048))).key == "RSA 2048"
