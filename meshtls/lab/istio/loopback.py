"""The translation's resources for a proxy that has no network of its own (the lab's loopback mode). Pure: resources in, resources out.

What interception does in a network namespace is said in Envoy's own words: there is an inbound listener for each captured port on the pod's
address, with the chains of that port, which tells the ORIGINAL_DST clusters where the application is; the outbound one hears the destination in
a PROXY header. Chains, TLS, routes and logs stay as they are. Nothing carries a mark, which would need a privilege, and no listener's addresses
ever change: where ports cannot be shared (SO_REUSEPORT, Linux alone), Envoy refuses that.
"""

from collections.abc import Callable

import msgspec

from meshtls.lab.istio import envoy
from meshtls.lab.istio.discovery import Answer, Configuration
from meshtls.lab.istio.envoy import Json
from meshtls.lab.istio.inbound import ORIGINAL_DST

PROXY_PROTOCOL = envoy.extension("filters.listener.proxy_protocol.v3.ProxyProtocol")


class Place(msgspec.Struct, frozen=True):
    """A pod's addresses: the cluster's, the application's behind the proxy, and its own 127.0.0.1. `ports` are the TCP ports that its
    containers declare, `opened` those that they listen on; `captured` says which ports the proxy takes."""

    ip: str
    app: str
    local: str
    ports: tuple[int, ...] = ()
    opened: frozenset[int] = frozenset()
    captured: Callable[[int], bool] = lambda _: True

    def listeners(self, listener: Json) -> list[Json]:
        """What becomes of a listener on the pod's addresses."""
        if listener.get("bind_to_port") is False:
            return [listener]
        listener = listener | {"enable_reuse_port": False}
        if listener["name"] == "virtualOutbound":
            return [listener | {"address": envoy.address(self.local, envoy.OUTBOUND_PORT), "listener_filters": [PROXY_PROTOCOL]}]
        if listener["name"] != "virtualInbound":
            address = listener["address"]["socket_address"]
            own = address["address"] == self.ip or not address["address"].startswith("127.")
            ip = self.ip if own else self.local
            return [listener | {"address": envoy.address(ip, address["port_value"])}]
        named = {chain["filter_chain_match"].get("destination_port", 0) for chain in listener["filter_chains"]}
        ports = sorted(p for p in {*self.ports, *self.opened, *named} - {0, envoy.INBOUND_PORT} if self.captured(p))
        own = self._inbound(listener, "virtualInbound", self.local, envoy.INBOUND_PORT)
        return [own, *(self._inbound(listener, f"virtualInbound-{port}", self.ip, port) for port in ports)]

    def _inbound(self, listener: Json, name: str, ip: str, port: int) -> Json:
        """The inbound listener for one port."""
        chains = [c for c in listener["filter_chains"] if c["filter_chain_match"].get("destination_port", port) == port]
        filters = [self._original(), *(f for f in listener["listener_filters"] if f != ORIGINAL_DST)]
        return listener | {"name": name, "address": envoy.address(ip, port), "filter_chains": chains, "listener_filters": filters}

    def _original(self) -> Json:
        """In place of what interception leaves in the kernel: where ORIGINAL_DST clusters connect to."""
        where = envoy.text(f"{self.app}:%DOWNSTREAM_LOCAL_PORT%")
        key = "envoy.network.transport_socket.original_dst_address"
        return envoy.extension(
            "filters.listener.set_filter_state.v3.Config",
            on_accept=[{"object_key": key, "format_string": where}],
        )

    def cluster(self, cluster: Json) -> Json:
        """A cluster whose sockets are unmarked, and which finds the pod's own application."""
        out = dict(cluster)
        if out.pop("upstream_bind_config", {}).get("source_address"):
            out["upstream_bind_config"] = {"source_address": envoy.address(self.local, 0)["socket_address"]}
        if out["name"].startswith("inbound|") and "load_assignment" in out:
            groups = out["load_assignment"]["endpoints"]
            mine = [{"lb_endpoints": [self._endpoint(e) for e in group["lb_endpoints"]]} for group in groups]
            out["load_assignment"] = out["load_assignment"] | {"endpoints": mine}
        return out

    def _endpoint(self, endpoint: Json) -> Json:
        where = endpoint["endpoint"]["address"].get("socket_address")
        return {"endpoint": {"address": envoy.address(self.app, where["port_value"])}} if where else endpoint

    def bootstrap(self) -> Json:
        """What to add to the bootstrap: everything that the proxy sends comes from the pod's address."""
        return {"cluster_manager": {"upstream_bind_config": {"source_address": envoy.address(self.ip, 0)["socket_address"]}}}


def configuration(place: Place, found: Configuration) -> Configuration:
    """What a proxy is told, for this place. Of a pod's place only the opened ports change."""
    more = "".join(f"-{port}" for port in sorted(place.opened))

    def changed(answer: Answer, change: Callable[[Json], list[Json]]) -> Answer:
        bodies = (msgspec.json.encode(each) for body in answer.resources for each in change(msgspec.json.decode(body)))
        return Answer(answer.version + more, tuple(bodies))

    clusters, listeners = changed(found.clusters, lambda each: [place.cluster(each)]), changed(found.listeners, place.listeners)
    return msgspec.structs.replace(found, clusters=clusters, listeners=listeners)
