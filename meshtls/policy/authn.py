"""PeerAuthentication: which mode the policies add up to, for a workload and its ports.

1. Three policies count at most: the oldest without selector in the root namespace (mesh), the oldest without selector in the
   workload's namespace, and the oldest whose selector matches the workload, unless it lives in the root namespace.
2. The narrowest that says a mode wins; absent, empty and UNSET inherit from the next wider; PERMISSIVE where none says one.
3. Ports come from the matching workload policy only; a port without mode takes the workload's; keys are target ports.
4. Nothing of two policies of the same scope is merged: the younger one counts for nothing.

(ComposePeerAuthentication in pilot/pkg/security/authn/policy_applier.go, addPeerAuthentication in pilot/pkg/model.)
"""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from meshtls.model.objects import PeerAuthentication
from meshtls.policy.because import Because
from meshtls.policy.select import age, subset

UNSET: Final = "UNSET"
DISABLE: Final = "DISABLE"
PERMISSIVE: Final = "PERMISSIVE"
STRICT: Final = "STRICT"


class Effective(msgspec.Struct, frozen=True):
    """The mode of a workload, and of those ports that its policy names. `winner` is the object that set `mode` ("" default).

    `missing`: in ambient, the converted policy that the workload refers to and istiod never makes ("" none).
    """

    mode: str
    ports: dict[int, str]
    because: tuple[Because, ...]
    shadowed: tuple[Because, ...]
    winner: str = ""
    missing: str = ""

    def on(self, port: int) -> str:
        """The mode on a target port."""
        return self.ports.get(port, self.mode)


def mode_of(policy: PeerAuthentication) -> str:
    return policy.spec.mtls.mode if policy.spec.mtls else UNSET


def is_wide(policy: PeerAuthentication) -> bool:
    """Whether it is a policy for a whole namespace, or the mesh: no selector, or an empty one."""
    return policy.spec.selector is None or not policy.spec.selector.match_labels


def ports_of(policy: PeerAuthentication) -> dict[int, str]:
    """Port -> mode as written; keys that are no port number are not ports."""
    return {int(port): m.mode for port, m in policy.spec.port_level_mtls.items() if port.isascii() and port.isdigit()}


class Authn:
    """Every PeerAuthentication that one control plane reads, ready to be asked."""

    def __init__(self, policies: Iterable[PeerAuthentication], root: str) -> None:
        self.root = root
        self._wide: dict[str, list[PeerAuthentication]] = {}
        self._narrow: dict[str, list[PeerAuthentication]] = {}
        for policy in sorted(policies, key=age):
            table = self._wide if is_wide(policy) else self._narrow
            table.setdefault(policy.namespace, []).append(policy)
        self._keys = {
            namespace: tuple(sorted({k for p in found for k in p.spec.selector.match_labels}))  # type: ignore[union-attr]
            for namespace, found in self._narrow.items()
        }
        self._by_labels: dict[tuple[str, tuple[str | None, ...]], Effective] = {}

    @property
    def namespaces(self) -> frozenset[str]:
        """Where there are policies."""
        return frozenset(self._wide) | frozenset(self._narrow)

    def wide(self, namespace: str) -> PeerAuthentication | None:
        """The policy that wins for the whole of a namespace."""
        found = self._wide.get(namespace)
        return found[0] if found else None

    def selects(self, namespace: str, labels: Mapping[str, str]) -> list[PeerAuthentication]:
        """The policies whose selector matches, oldest first; none in the root namespace, where selectors are ignored."""
        if namespace == self.root:
            return []
        return [p for p in self._narrow.get(namespace, ()) if subset(p.spec.selector.match_labels, labels)]  # type: ignore[union-attr]

    def effective(self, namespace: str, labels: Mapping[str, str]) -> Effective:
        """What a workload with these labels enforces."""
        keys = self._keys.get(namespace, ())
        by = (namespace, tuple([labels.get(k) for k in keys]))
        found = self._by_labels.get(by)
        if found is None:
            found = self._by_labels[by] = self._resolve(namespace, labels)
        return found

    def _resolve(self, namespace: str, labels: Mapping[str, str]) -> Effective:
        mode, winner = PERMISSIVE, ""
        because: list[Because] = []
        shadowed: list[Because] = []
        narrow = self.selects(namespace, labels)
        levels = (
            ("mesh", self._wide.get(self.root, [])),
            ("namespace", self._wide.get(namespace, []) if namespace != self.root else []),
            ("workload", narrow),
        )
        set_by: list[tuple[PeerAuthentication, str]] = []
        for scope, found in levels:
            for younger in found[1:]:
                shadowed.append(
                    Because(younger.ref, "metadata.creationTimestamp", f"{found[0].ref} is older and wins for the {scope}")
                )
            if not found:
                continue
            said = mode_of(found[0])
            if said == UNSET:
                shadowed.append(Because(found[0].ref, "spec.mtls.mode", f"sets no mode for the {scope}: it inherits"))
            else:
                set_by.append((found[0], scope))
                mode, winner = said, found[0].ref
        for policy, scope in set_by[:-1]:
            shadowed.append(Because(policy.ref, "spec.mtls.mode", f"{set_by[-1][0].ref} is narrower than the {scope}"))
        if set_by:
            policy, scope = set_by[-1]
            because.append(Because(policy.ref, "spec.mtls.mode", f"the {scope} is {mode}"))
        else:
            because.append(Because("", "", "no policy sets a mode: PERMISSIVE is Istio's default"))
        for ignored in self._narrow.get(self.root, ()):
            if namespace == self.root and subset(ignored.spec.selector.match_labels, labels):  # type: ignore[union-attr]
                shadowed.append(Because(ignored.ref, "spec.selector", "a selector in the root namespace is ignored"))
        ports: dict[int, str] = {}
        if narrow:
            for port, said in ports_of(narrow[0]).items():
                ports[port] = mode if said == UNSET else said
                says = f"port {port} is {ports[port]}" + (" (no mode of its own)" if said == UNSET else "")
                because.append(Because(narrow[0].ref, f"spec.portLevelMtls.{port}", says))
        return Effective(mode, ports, tuple(because), tuple(shadowed), winner)

    def hint(self, namespace: str) -> tuple[str, Because]:
        """What clients take as a namespace's mode when they decide about TLS at all: workload policies do not count.

        (PushContext.BestEffortInferServiceMTLSMode.)
        """
        mesh, own = self.wide(self.root), self.wide(namespace) if namespace != self.root else None
        for policy in (own, mesh):
            if policy is not None and mode_of(policy) != UNSET:
                return mode_of(policy), Because(policy.ref, "spec.mtls.mode", f"the namespace is {mode_of(policy)}")
        return PERMISSIVE, Because("", "", "no policy sets a mode for the namespace: PERMISSIVE")
