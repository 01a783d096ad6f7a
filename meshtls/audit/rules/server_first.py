"""Server-first protocols (MySQL, SMTP, FTP, SSH): a plaintext client hangs under PERMISSIVE already, for ever.

The proxy waits for the client's first bytes to tell TLS from plaintext; the client waits for the server's.
"""

from collections.abc import Iterator

from meshtls.audit.facts import Facts, inside
from meshtls.audit.rule import WORKLOADS, Flaw, Rule
from meshtls.model.check import Severity
from meshtls.model.workload import Workload
from meshtls.policy.service import AUTO, protocol_of

PORTS = {21: "FTP", 22: "SSH", 25: "SMTP", 110: "POP3", 143: "IMAP", 587: "SMTP", 3306: "MySQL"}
NAMES = {"mysql": "MySQL", "smtp": "SMTP", "ftp": "FTP", "ssh": "SSH", "sftp": "SSH", "imap": "IMAP", "pop3": "POP3"}
DECLARED = ("http", "http2", "https", "grpc", "tls")


def find(facts: Facts) -> Iterator[Flaw]:
    for w in facts.sidecars:
        for port, (name, app) in facts.ports(w).items():
            words = [*name.split("-"), app]
            if words[0] in DECLARED:
                continue
            protocol = next((NAMES[word] for word in words if word in NAMES), PORTS.get(port, ""))
            if not protocol or facts.skipped(w, port):
                continue
            mode = facts.mode(w, port)
            if mode == "DISABLE":
                continue
            plain = "hangs now, for ever" if mode == "PERMISSIVE" else "hangs: it is not refused"
            undeclared = _undeclared(facts, w, port)
            fine = (f"Clients in the mesh hang too: the port of {undeclared} declares no protocol, so that their proxy waits to detect it."
                    if undeclared else "Clients in the mesh are fine.")
            yield Flaw(
                subject=w.ref,
                path=inside(w, "spec", "containers", "ports", str(port)),
                message=f"{protocol} on port {port} of {w.label} speaks first: a plaintext client {plain}. {fine}",
                because=("the proxy waits for the client's first bytes to tell TLS from plaintext, without time limit", f"the port is {mode}"),
                fix=("Name the Service's port tcp-..., or give it appProtocol: tcp. " if undeclared else "Nothing for clients in the mesh. ")
                    + "For a client outside it:\nportLevelMtls:\n" + f'  "{port}":\n    mode: DISABLE',
            )


def _undeclared(facts: Facts, w: Workload, port: int) -> str:
    """The Service whose port leads here without a protocol, so that a client's proxy has to detect it; "" for none."""
    for service in facts.services_of.get(w.ref, ()):
        for each in service.spec.ports:
            if facts.target(each, w) == port and protocol_of(each) == AUTO:
                return service.ref
    return ""


RULE = Rule(code="MT270", title="A server-first protocol hangs for plaintext clients", severity=Severity.WARNING,
            catalogue=("SF-01",), about=WORKLOADS, needs=("PeerAuthentication", "Namespace"), reads=("Service",), find=find)
