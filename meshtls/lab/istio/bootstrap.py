"""What an Envoy starts with: its name, where its configuration comes from, its admin socket. The rest is dynamic."""

from typing import Any

from meshtls.lab.istio import envoy
from meshtls.lab.istio.envoy import Json
from meshtls.lab.istio.objects import DOMAIN, Obj, labels, name_of, namespace_of, pod_ip
from meshtls.lab.istio.world import World


def node_id(pod: Obj) -> str:
    """sidecar~<ip>~<pod>.<namespace>~<namespace>.svc.cluster.local."""
    namespace = namespace_of(pod)
    return f"sidecar~{pod_ip(pod)}~{name_of(pod)}.{namespace}~{namespace}.svc.{DOMAIN}"


def drain_seconds(world: World) -> int:
    """Seconds that an old listener's connections live: drainDuration of the mesh's proxy configuration, else 45."""
    text = str((world.mesh.get("defaultConfig") or {}).get("drainDuration") or world.mesh.get("drainDuration") or "45s")
    units = {"s": 1, "m": 60, "h": 3600}
    return round(float(text[:-1]) * units[text[-1]]) if text[-1] in units else round(float(text))


def arguments(world: World, pod: Obj) -> list[str]:
    """Envoy's flags, apart from the configuration's path."""
    return [
        "--drain-time-s",
        str(drain_seconds(world)),
        "--drain-strategy",
        "immediate",
        "--disable-hot-restart",
        "--concurrency",
        "1",
        "--service-node",
        node_id(pod),
        "--service-cluster",
        f"{labels(pod).get('app') or name_of(pod)}.{namespace_of(pod)}",
        "--file-flush-interval-msec",
        "200",
        "--log-level",
        "warning",
    ]


def _server(name: str, path: str) -> Json:
    pipe = {"endpoint": {"address": {"pipe": {"path": path}}}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [pipe]}]},
    }


def bootstrap(pod: Obj, world: World, *, xds_socket: str, admin_socket: str, static: Json | None = None) -> Json:
    """The bootstrap of a pod's Envoy. `xds_socket` and `admin_socket` are paths of unix sockets, which need no
    network of the pod's. `static` (`{"listeners": [...], "clusters": [...]}`) embeds resources instead of asking for
    them: for validation."""
    source = envoy.xds_source()
    xds, ads = _server("xds", xds_socket), _server("ads", xds_socket)
    ads["typed_extension_protocol_options"] = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": envoy.typed(
            "upstreams.http.v3.HttpProtocolOptions", explicit_http_config={"http2_protocol_options": {}}
        )
    }
    out: dict[str, Any] = {
        "node": {
            "id": node_id(pod),
            "cluster": f"{labels(pod).get('app') or name_of(pod)}.{namespace_of(pod)}",
            "metadata": {"NAMESPACE": namespace_of(pod), "NAME": name_of(pod), "LABELS": labels(pod)},
        },
        "admin": {"address": {"pipe": {"path": admin_socket}}},
        "stats_config": {
            "use_all_default_tags": False,
            "stats_matcher": {"exclusion_list": {"patterns": [{"prefix": "cluster.outbound"}, {"prefix": "vhost."}]}},
        },
        "static_resources": {"clusters": [xds, ads]},
    }
    if static is None:
        out["dynamic_resources"] = {"lds_config": source, "cds_config": source, "ads_config": envoy.ADS}
    else:
        out["static_resources"] = {"clusters": [xds, ads, *static["clusters"]], "listeners": static["listeners"]}
    return out
