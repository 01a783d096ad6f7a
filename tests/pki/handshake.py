"""A real TLS handshake between two OpenSSL contexts, without sockets: what each side makes of it."""

import ssl

import msgspec
import trustme

from meshtls.pki.authority import Authority, Pair


class Outcome(msgspec.Struct, frozen=True):
    """`server` is why the server refused ("" if it did not), `client` the reason that the client saw."""

    server: str
    client: str
    names: tuple[tuple[str, str], ...] = ()
    """The client certificate's alternative names, as the server saw them."""


def meet(tmp_path, authority: Authority, offered: Pair | None, version: ssl.TLSVersion) -> Outcome:
    """A client that offers a certificate to an ordinary server which trusts only `authority` for clients."""
    ordinary = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ordinary.issue_cert("server.example").configure_cert(server)
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(cadata=authority.pair().certificate_pem)
    ordinary.configure_trust(client)
    if offered is not None:
        file = tmp_path / "offered.pem"
        file.write_text(offered.certificate_pem + offered.key_pem)
        client.load_cert_chain(file)
    server.minimum_version = server.maximum_version = client.minimum_version = client.maximum_version = version
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = client.wrap_bio(to_client, to_server, server_hostname="server.example")
    there = server.wrap_bio(to_server, to_client, server_side=True)
    reasons = {}
    for _ in range(4):
        for name, side in (("client", here), ("server", there)):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                reasons.setdefault(name, error.reason)
    try:
        here.read(1)
    except ssl.SSLWantReadError:
        pass
    except ssl.SSLError as error:
        reasons.setdefault("client", error.reason)
    names = () if reasons else tuple((there.getpeercert() or {}).get("subjectAltName", ()))
    return Outcome(reasons.get("server", ""), reasons.get("client", ""), names)
