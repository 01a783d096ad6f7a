"""SPIFFE names as Istio writes them: spiffe://<trust domain>/ns/<namespace>/sa/<service account> (pkg/spiffe
ParseIdentity). Pure."""

import re

import msgspec

from meshtls.errors import InputError

_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"{_LABEL}")
_SUBDOMAIN = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*")
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")


class Identity(msgspec.Struct, frozen=True):
    """A workload's name in a mesh."""

    trust_domain: str
    namespace: str
    account: str

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}/ns/{self.namespace}/sa/{self.account}"


def parse(text: str) -> Identity:
    """The identity that a SPIFFE name says. Raises InputError if it is not of Istio's form."""
    parts = text.removeprefix("spiffe://").split("/")
    fits = (
        text.startswith("spiffe://")
        and len(parts) == 5
        and (parts[1], parts[3]) == ("ns", "sa")
        and _TRUST_DOMAIN.fullmatch(parts[0])
        and _NAME.fullmatch(parts[2])
        and _SUBDOMAIN.fullmatch(parts[4])
    )
    if not fits:
        shown = text if len(text) <= 100 else text[:100] + "..."
        raise InputError(
            f"{shown!r} is no Istio identity", "write spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT"
        )
    return Identity(parts[0], parts[2], parts[4])
