"""What an Envoy starts with: its name, where its configuration comes from, its admin socket. The rest is dynamic."""

from meshtls.lab.api.istio_rules import duration_s
from meshtls.lab.istio import envoy, meshconfig
from meshtls.lab.istio.envoy import Json
from meshtls.lab.istio.objects import DOMAIN, Obj, labels, name_of, namespace_of, pod_ip, proxy_variable
from meshtls.lab.istio.world import World

# What Istio's bootstrap takes out of the names of Envoy's own statistics (envoy_bootstrap.json), as far as dry runs are counted by it: each
# expression costs every proxy time at its start and at every change. Envoy tries one on every name, unless it begins with one word and
# a dot: so what stands below http and tcp alone says so.
_BELOW = ("http", "tcp")
STATS_TAGS = (
    *(("authz_dry_run_action", rf"^{word}(?=\.).*(\.istio_dry_run_(allow|deny)_)") for word in _BELOW),
    *(("authz_dry_run_result", rf"^{word}(?=\.).*(\.shadow_(allowed|denied))") for word in _BELOW),
    ("http_conn_manager_prefix", r"^http\.(((?:[_.[:digit:]\w]*|[_\[\]aAbBcCdDeEfF[:digit:]\w\:]*));\.)"),
    ("tcp_prefix", r"^tcp\.((.*?)\.)\w+?$"),
)


def node_id(pod: Obj) -> str:
    """sidecar~<ip>~<pod>.<namespace>~<namespace>.svc.cluster.local."""
    namespace = namespace_of(pod)
    return f"sidecar~{pod_ip(pod)}~{name_of(pod)}.{namespace}~{namespace}.svc.{DOMAIN}"


def drain_seconds(pod: Obj, world: World) -> int:
    """Seconds that an old listener's connections live: drainDuration as the injector wrote it into the proxy, else the mesh's, else 45."""
    config = meshconfig.proxy(proxy_variable(pod, "PROXY_CONFIG") or "{}", world.mesh)
    return round(duration_s(config.get("drainDuration") or "45s") or 0)


def arguments(world: World, pod: Obj) -> list[str]:
    """Envoy's flags, apart from the configuration's path."""
    options = {
        "--drain-time-s": str(drain_seconds(pod, world)),
        "--drain-strategy": "immediate",
        "--concurrency": "1",
        "--service-node": node_id(pod),
        "--service-cluster": _cluster(pod),
        "--file-flush-interval-msec": "200",
        "--log-level": "warning",
    }
    return ["--disable-hot-restart", *(word for option in options.items() for word in option)]


def _cluster(pod: Obj) -> str:
    return f"{labels(pod).get('app') or name_of(pod)}.{namespace_of(pod)}"


def _server(name: str, path: str) -> Json:
    pipe = {"endpoint": {"address": {"pipe": {"path": path}}}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [pipe]}]},
    }


def bootstrap(pod: Obj, world: World, *, xds_socket: str, admin_socket: str) -> Json:
    """The bootstrap of a pod's Envoy. `xds_socket` and `admin_socket` are paths of unix sockets, which need no
    network of the pod's."""
    xds, ads = _server("xds", xds_socket), _server("ads", xds_socket)
    ads["typed_extension_protocol_options"] = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": envoy.typed(
            "upstreams.http.v3.HttpProtocolOptions", explicit_http_config={"http2_protocol_options": {}}
        )
    }
    return {
        "node": {
            "id": node_id(pod),
            "cluster": _cluster(pod),
            "metadata": {"NAMESPACE": namespace_of(pod), "NAME": name_of(pod), "LABELS": labels(pod)},
        },
        "admin": {"address": {"pipe": {"path": admin_socket}}},
        "stats_config": {
            "use_all_default_tags": False,
            "stats_tags": [{"tag_name": name, "regex": regex} for name, regex in STATS_TAGS],
            "stats_matcher": {"exclusion_list": {"patterns": [{"prefix": "cluster.outbound"}, {"prefix": "vhost."}]}},
        },
        "static_resources": {"clusters": [xds, ads]},
        "dynamic_resources": {"lds_config": envoy.XDS, "cds_config": envoy.XDS, "ads_config": envoy.ADS},
    }
