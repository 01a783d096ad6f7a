"""`meshtls pki`: make a test CA and certificates, good and flawed, and say whose a certificate is."""

import datetime
import os
import secrets
import sys
import tempfile
from typing import Any

import click

from meshtls.cli.options import Duration, Options, shared
from meshtls.errors import InputError

CA, CA_KEY = "ca.pem", "ca-key.pem"

folder = click.option(
    "-d", "--dir", "where", default=".", show_default=True, metavar="DIR", help="Folder of the files."
)
lifetime = click.option(
    "--lifetime",
    "life_s",
    type=Duration(),
    default="1h",
    show_default=True,
    metavar="DURATION",
    help="How long it is valid, 24h at most.",
)
force = click.option("--force", is_flag=True, help="Overwrite files that are there.")
mesh_root = click.option(
    "--mesh-root",
    "root_file",
    metavar="FILE",
    help="The mesh's root certificate (the ConfigMap istio-ca-root-cert), never its key.",
)


@click.group()
def pki() -> None:
    """A test CA and SPIFFE certificates, good and flawed.

    What is made is marked O=meshtls test, lives for an hour unless asked, and no mesh trusts it: it is for proving
    that a mesh refuses it, and for rehearsals on servers of your own. The mesh's own CA is never asked for.
    """


@pki.command()
@folder
@lifetime
@mesh_root
@force
@shared("output")
def ca(options: Options, where: str, life_s: float, root_file: str | None, force: bool) -> None:
    """Make a test CA: ca.pem and ca-key.pem.

    With --mesh-root the CA is refused if it has that root's name or key.
    """
    from meshtls.pki.authority import Authority, refuse_mesh_root

    roots = _roots(root_file)
    authority = Authority.new(_now(), datetime.timedelta(seconds=life_s), secrets.token_bytes)
    refuse_mesh_root(authority, roots)
    _say(options, [_store(where, "ca", "a test CA", authority.pair(), force)])


@pki.command(short_help="A good certificate for an identity.")
@click.argument("identity")
@folder
@lifetime
@click.option("--name", default="", metavar="NAME", help="Name of the files; else NAMESPACE-ACCOUNT.")
@force
@shared("output")
def leaf(options: Options, identity: str, where: str, life_s: float, name: str, force: bool) -> None:
    """Make a good certificate for IDENTITY, spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT, signed by the CA in
    --dir."""
    from meshtls.pki import workload
    from meshtls.pki.identity import parse

    whose = parse(identity)
    pair = workload.issue(_authority(where), whose, _now(), secrets.token_bytes, datetime.timedelta(seconds=life_s))
    _say(options, [_store(where, _safe(name or f"{whose.namespace}-{whose.account}"), f"good: {whose}", pair, force)])


@pki.command(short_help="Certificates of every flaw.")
@click.argument("identity")
@folder
@click.option("--only", multiple=True, metavar="FLAW", help="Only this flaw; repeat it for several.")
@mesh_root
@force
@shared("output")
def flaws(
    options: Options, identity: str, where: str, only: tuple[str, ...], root_file: str | None, force: bool
) -> None:
    """Make one certificate of each flaw for IDENTITY, signed by the CA in --dir where the flaw is not the CA itself.

    same-named-ca takes the name of --mesh-root's CA, or the test CA's; the key that signed it is thrown away.
    """
    from meshtls.pki import flaws as catalogue
    from meshtls.pki.identity import parse

    chosen = [catalogue.find(name) for name in only] or list(catalogue.FLAWS)
    roots = _roots(root_file)
    order = catalogue.Order(
        _authority(where), parse(identity), _now(), secrets.token_bytes, roots[0] if roots else None
    )
    made = [(flaw, flaw.make(order)) for flaw in chosen]
    if not force:
        _refuse_existing([os.path.join(where, name) for flaw, _ in made for name in _names(flaw.name)])
    _say(options, [_store(where, flaw.name, flaw.what, pair, force) for flaw, pair in made])


@pki.command(short_help="Whose certificates are, and what is wrong with them.")
@click.argument("file")
@click.option("--root", "root_file", metavar="FILE", help="Root certificates that may have signed it.")
@shared("output")
def inspect(options: Options, file: str, root_file: str | None) -> None:
    """Say whose the certificates in FILE are (PEM or DER; - for standard input)."""
    from meshtls.cli.output import emit_document
    from meshtls.pki import inspect as reader

    found = reader.inspect(reader.load(_read(file, reader.LARGEST)), _now(), _roots(root_file))
    emit_document(
        {"apiVersion": "meshtls.dev/v1", "kind": "Certificates", "certificates": found}, options, lambda: _table(found)
    )


def _table(found: tuple[Any, ...]) -> str:
    lines = []
    for facts in found:
        lines += [facts.words, f"  subject   {facts.subject or '(none)'}", f"  issuer    {facts.issuer or '(none)'}",
                  f"  names     {', '.join(facts.uris + facts.dns + facts.addresses) or '(none)'}",
                  f"  valid     {facts.not_before} to {facts.not_after}", f"  key       {facts.key}", f"  serial    {facts.serial}",
                  f"  sha256    {facts.sha256}"]  # fmt: skip
    return "\n".join(lines) + "\n"


def _say(options: Options, made: list[dict[str, str]]) -> None:
    from meshtls.cli.output import emit_document

    wide = max(len(one["certificate"]) for one in made)
    emit_document({"apiVersion": "meshtls.dev/v1", "kind": "CertificateFiles", "items": made}, options,
                  lambda: "".join(f"{one['certificate']:{wide}}  {one['what']}; until {one['notAfter']}\n" for one in made))  # fmt: skip


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _authority(where: str) -> Any:
    from meshtls.pki.authority import Authority

    return Authority.load(_read(os.path.join(where, CA), 1 << 16), _read(os.path.join(where, CA_KEY), 1 << 16))


def _roots(path: str | None) -> list[Any]:
    from meshtls.pki import inspect as reader

    return reader.load(_read(path, reader.LARGEST)) if path else []


def _read(path: str, most: int) -> bytes:
    """At most `most` + 1 bytes of a file. Raises InputError."""
    try:
        if path == "-":
            return sys.stdin.buffer.read(most + 1)
        with open(path, "rb") as file:
            return file.read(most + 1)
    except OSError as error:
        hint = (
            "make a test CA first with `meshtls pki ca`"
            if os.path.basename(path) in (CA, CA_KEY)
            else "name a file that you can read"
        )
        raise InputError(f"cannot read {path}: {error.strerror or error}", hint) from error


def _safe(name: str) -> str:
    if not name or name in (".", "..") or any(one in name for one in ("/", "\0")) or name == "ca":
        raise InputError(f"{name!r} cannot name the files", "choose another --name")
    return name


def _names(name: str) -> tuple[str, str]:
    return f"{name}.pem", f"{name}-key.pem"


def _refuse_existing(paths: list[str]) -> None:
    for path in paths:
        if os.path.lexists(path):
            raise InputError(f"{path} is there already", "choose another --dir, or overwrite with --force")


def _store(where: str, name: str, what: str, pair: Any, force: bool) -> dict[str, str]:
    """Write a pair, the key first and only for its owner. Raises InputError."""
    certificate, key = (os.path.join(where, one) for one in _names(name))
    if not force:
        _refuse_existing([certificate, key])
    _write(key, pair.key_pem, 0o600, force)
    _write(certificate, pair.certificate_pem, 0o644, force)
    return {"name": name, "what": what, "certificate": certificate, "key": key,
            "notAfter": f"{pair.certificate().not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"}  # fmt: skip


def _write(path: str, text: str, mode: int, force: bool) -> None:
    """A whole file or none: it is filled under another name, which only its owner may read, and then takes its
    place."""
    where = os.path.dirname(path) or "."
    try:
        os.makedirs(where, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".meshtls-", dir=where)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(text)
                file.flush()
                os.fchmod(file.fileno(), mode)
            # a link, unlike a rename, fails if a file has come there meanwhile
            (os.replace if force else os.link)(temporary, path)
        finally:
            if os.path.lexists(temporary):
                os.unlink(temporary)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}", "name a folder that you can write to with --dir"
        ) from error
