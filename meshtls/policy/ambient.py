"""Ambient: which mode ztunnel enforces, from the policies that istiod makes of PeerAuthentications.

1. Under an effective STRICT the workload refers to one static policy that denies whoever has no identity; DISABLE and
   PERMISSIVE refer to nothing: ztunnel takes both mTLS and plaintext.
2. A workload policy with ports is converted to a policy of its own, and the workload refers to it. The two decisions, to refer
   and to convert, are taken in two places that do not always agree.
3. A reference to a policy that was never made is skipped by ztunnel: everything it should have denied is let in.
4. Of two policies of one second, istiod takes the one that its index lists first, which may change: the first by name is taken
   here, and the other's reason says so.
5. A policy whose selector is present but empty counts as a namespace's where workloads look, not in the root namespace, and
   not where policies are converted.

(pilot/pkg/serviceregistry/ambient authorization.go convertedSelectorPeerAuthentications and convertPeerAuthentication,
policies.go, workloads.go fetchPeerAuthentications.)
"""

from collections.abc import Iterable, Mapping

import msgspec

from meshtls.model.objects import PeerAuthentication
from meshtls.policy.authn import DISABLE, PERMISSIVE, STRICT, UNSET, Effective, is_wide, mode_of, ports_of
from meshtls.policy.because import Because
from meshtls.policy.select import age, subset

OPEN = (PERMISSIVE, DISABLE)


class Converted(msgspec.Struct, frozen=True):
    """A DENY policy as far as a client without identity meets it: the ports it names, and whether all others are denied."""

    denied: frozenset[int]
    open: frozenset[int]
    everything_else: bool

    def denies(self, port: int) -> bool:
        return port in self.denied or (self.everything_else and port not in self.open)


class Ambient:
    """Every PeerAuthentication that the control plane reads, as ztunnels come to meet it."""

    def __init__(self, policies: Iterable[PeerAuthentication], root: str) -> None:
        self.root = root
        self._in: dict[str, list[PeerAuthentication]] = {}
        for policy in sorted(policies, key=age):
            self._in.setdefault(policy.namespace, []).append(policy)

    def _applying(self, namespace: str, labels: Mapping[str, str]) -> list[PeerAuthentication]:
        own = [
            p
            for p in self._in.get(namespace, ())
            if p.spec.selector is None or subset(p.spec.selector.match_labels, labels)
        ]
        wide = [p for p in self._in.get(self.root, ()) if p.spec.selector is None] if namespace != self.root else []
        return own + wide

    def _parent(self, namespace: str) -> PeerAuthentication | None:
        """The namespace's policy as conversion sees it: the oldest without any selector at all."""
        return next((p for p in self._in.get(namespace, ()) if p.spec.selector is None), None)

    def effective(self, namespace: str, labels: Mapping[str, str]) -> Effective:
        """The mode of a captured workload: STRICT where plaintext is denied, else PERMISSIVE."""
        because: list[Because] = []
        shadowed: list[Because] = []
        mesh = own = narrow = None
        for policy in self._applying(namespace, labels):
            if is_wide(policy):
                if policy.namespace == self.root:
                    mesh, younger = mesh or policy, mesh
                else:
                    own, younger = own or policy, own
            elif policy.namespace != self.root:
                narrow, younger = narrow or policy, narrow
            else:
                shadowed.append(Because(policy.ref, "spec.selector", "a selector in the root namespace is ignored"))
                continue
            if younger is not None:
                same = younger.metadata.creation_timestamp == policy.metadata.creation_timestamp
                says = "is as old: which of the two counts is up to chance" if same else "is older and wins"
                shadowed.append(Because(policy.ref, "metadata.creationTimestamp", f"{younger.ref} {says}"))
        if namespace != self.root:
            for policy in self._in.get(self.root, ()):
                if policy.spec.selector is not None and is_wide(policy):
                    shadowed.append(Because(policy.ref, "spec.selector", "an empty selector in the root namespace counts for nothing in ambient"))
        strict = False
        winner = ""
        for wide in (mesh, own):
            if wide is not None and (mode_of(wide) != UNSET or wide is mesh):
                strict, winner = mode_of(wide) == STRICT, wide.ref
                because.append(Because(policy.ref, "spec.mtls.mode", _says(mode_of(policy))))
        if narrow is None:
            return self._answer(strict, None, winner, because, shadowed)

        said, ports = mode_of(narrow), ports_of(narrow)
        if said != UNSET:
            strict, winner = said == STRICT, narrow.ref
            because.append(Because(narrow.ref, "spec.mtls.mode", _says(said)))
        refers = False
        if narrow.spec.port_level_mtls:
            modes = set(ports.values())
            if said == STRICT:
                refers = bool(modes & set(OPEN))
                strict = strict and not refers
            elif said in OPEN:
                refers = STRICT in modes
            elif strict:
                refers = PERMISSIVE in modes
                strict = not refers
                if not refers and DISABLE in modes:
                    because.append(
                        Because(narrow.ref, "spec.portLevelMtls", "DISABLE without a mode of the workload is no exception in ambient")
                    )
            else:
                refers = STRICT in modes
        if not refers:
            return self._answer(strict, None, winner, because, shadowed)
        made = self._convert(narrow, said, ports)
        missing = "" if made else f"{namespace}/converted_peer_authentication_{narrow.name}"
        if missing:
            says = f"the workload refers to {missing}, which istiod never makes: ztunnel skips it and lets plaintext in"
            because.append(Because(narrow.ref, "spec.portLevelMtls", says))
        else:
            for port, mode in sorted(ports.items()):
                because.append(Because(narrow.ref, f"spec.portLevelMtls.{port}", f"port {port}: {mode}"))
        answer = self._answer(strict, made, winner, because, shadowed, ports)
        return msgspec.structs.replace(answer, missing=missing) if missing else answer

    def _convert(self, policy: PeerAuthentication, said: str, ports: Mapping[int, str]) -> Converted | None:
        own, mesh = self._parent(policy.namespace), self._parent(self.root)
        own_mode = mode_of(own) if own else None
        mesh_strict = mesh is not None and mode_of(mesh) == STRICT
        denied: set[int] = set()
        opened: set[int] = set()
        for port, mode in ports.items():
            if mode == STRICT:
                # "the workload says nothing" guards only the namespace's mode in istiod's expression, not the mesh's
                if said == STRICT or (said == UNSET and own_mode == STRICT) or (own_mode in (None, UNSET) and mesh_strict):
                    continue
                denied.add(port)
            elif mode in OPEN:
                if said in OPEN:
                    continue
                if said == UNSET and (
                    (own is not None and own_mode != STRICT) or (own is None and not mesh_strict)
                ):
                    continue
                opened.add(port)
        if said == STRICT and not opened:
            return None
        merged = own_mode == STRICT or (mesh_strict and own_mode in (None, UNSET))
        rules = said == STRICT or bool(opened)
        if not rules and not denied:
            return None
        # with ports opened, and no rule about identity, everything but those ports would be denied to everyone
        return Converted(frozenset(denied), frozenset(opened), rules and (said == STRICT or merged or bool(opened)))

    def _answer(
        self,
        strict: bool,
        made: Converted | None,
        winner: str,
        because: list[Because],
        shadowed: list[Because],
        ports: Mapping[int, str] | None = None,
    ) -> Effective:
        if not because:
            because.append(Because("", "", "no policy sets a mode: ztunnel takes mTLS and plaintext"))
        if made is None:
            return Effective(STRICT if strict else PERMISSIVE, {}, tuple(because), tuple(shadowed), winner)
        rest = STRICT if strict or made.everything_else else PERMISSIVE
        exact = {p: STRICT if strict or made.denies(p) else PERMISSIVE for p in ports or {}}
        return Effective(rest, exact, tuple(because), tuple(shadowed), winner)


def _says(mode: str) -> str:
    return "DISABLE counts as PERMISSIVE in ambient: HBONE and plaintext are both taken" if mode == DISABLE else mode
