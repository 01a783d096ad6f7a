"""The proposed change: a mesh in which namespaces have gone STRICT, as a migration would do it.

`--strict NS` patches the PeerAuthentication that wins for the whole of NS, or adds one named `default` where there is none;
policies of workloads and their ports stay. In the root namespace that is the mesh's own policy. Age and name stay too: they
decide which policy wins.
"""

from collections.abc import Iterable

import msgspec

from meshtls.model.mesh import Mesh
from meshtls.model.objects import Metadata, MutualTls, PeerAuthentication, PeerAuthenticationSpec
from meshtls.policy.authn import STRICT, is_wide
from meshtls.policy.select import age

# younger than anything that is: a policy that is added now never outranks one that exists
_NOW = "9999-12-31T23:59:59Z"


def winner(mesh: Mesh, namespace: str) -> PeerAuthentication | None:
    """The PeerAuthentication that decides for the whole of a namespace."""
    found = [p for p in mesh.peer_authentications if p.namespace == namespace and is_wide(p)]
    return min(found, key=age, default=None)


def strict(mesh: Mesh, namespaces: Iterable[str]) -> Mesh:
    """The same mesh with these namespaces STRICT."""
    policies = list(mesh.peer_authentications)
    for namespace in dict.fromkeys(namespaces):
        old = winner(mesh, namespace)
        if old is None:
            name = "default"
            while any(p.namespace == namespace and p.name == name for p in policies):
                name += "-strict"
            meta = Metadata(name=name, namespace=namespace, creation_timestamp=_NOW)
            spec = PeerAuthenticationSpec(mtls=MutualTls(mode=STRICT))
            policies.append(PeerAuthentication(api_version="security.istio.io/v1", metadata=meta, spec=spec))
        else:
            spec = msgspec.structs.replace(old.spec, mtls=MutualTls(mode=STRICT))
            policies[policies.index(old)] = msgspec.structs.replace(old, spec=spec)
    policies.sort(key=lambda p: (p.namespace, p.name))
    return msgspec.structs.replace(mesh, peer_authentications=tuple(policies))
