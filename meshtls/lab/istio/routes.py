"""Which cluster an outbound HTTP request goes to: virtual hosts per port, from services and virtual services
(pilot/pkg/networking/core httproute.go, core/route).

A service without a virtual service has one default route. Host names, short names and addresses lead to a virtual
host; a host that nothing knows goes to PassthroughCluster, or gets 502 under REGISTRY_ONLY.
"""

from collections.abc import Iterable
from typing import Any

from meshtls.lab.istio import envoy, hosts
from meshtls.lab.istio.envoy import Json
from meshtls.lab.istio.filters import Proxy
from meshtls.lab.istio.objects import AUTO, HTTP, Obj, Service, namespace_of, spec
from meshtls.lab.istio.scope import Scope, vs_key
from meshtls.lab.istio.world import World

RETRY: Json = {
    "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
    "num_retries": 2,
    "host_selection_retry_max_attempts": 5,
    "retry_host_predicate": [
        envoy.extension(
            "envoy.retry_host_predicates.previous_hosts", "retry.host.previous_hosts.v3.PreviousHostsPredicate"
        )
    ],
}
REDIRECTS = {
    301: "MOVED_PERMANENTLY",
    302: "FOUND",
    303: "SEE_OTHER",
    307: "TEMPORARY_REDIRECT",
    308: "PERMANENT_REDIRECT",
}


def for_listener(proxy: Proxy, port: int, sniffed_host: str = "") -> Json:
    """A listener's route table: all hosts of a port, or with `sniffed_host` that service alone, under any name."""
    if port not in proxy.virtual_hosts:
        proxy.virtual_hosts[port] = _virtual_hosts(proxy, port)
    hosts_of_port = proxy.virtual_hosts[port]
    if sniffed_host:
        chosen = [dict(v) for v in hosts_of_port if sniffed_host in v["domains"]]
        if len(chosen) == 1:
            chosen[0]["domains"] = ["*"]
        return _table(f"{sniffed_host}:{port}", chosen)
    return _table(str(port), [*hosts_of_port, catch_all(proxy.scope)])


def catch_all(scope: Scope) -> Json:
    """The virtual host for names that nothing knows."""
    if scope.allow_any:
        route: Json = {
            "name": "allow_any",
            "match": {"prefix": "/"},
            "route": {"cluster": scope.unclaimed, "timeout": "0s"},
        }
        return {"name": "allow_any", "domains": ["*"], "routes": [route], "include_request_attempt_count": True}
    route = {"name": "block_all", "match": {"prefix": "/"}, "direct_response": {"status": 502}}
    return {"name": "block_all", "domains": ["*"], "routes": [route], "include_request_attempt_count": True}


def _table(name: str, virtual_hosts: list[Json]) -> Json:
    return {
        "name": name,
        "virtual_hosts": virtual_hosts,
        "validate_clusters": False,
        "ignore_port_in_host_matching": True,
        "max_direct_response_body_size_bytes": 1 << 20,
    }


def _virtual_hosts(proxy: Proxy, port: int) -> list[Json]:
    """BuildSidecarOutboundVirtualHosts."""
    listener = proxy.scope.listener_for(port)
    if listener is None:
        return []
    services = {s.hostname.lower(): s for s in listener.services if s.port(port)}
    virtual = [v for v in listener.virtual_services if port == 80 or _concerns(v, services)]
    wrapped: list[tuple[list[str], list[Service], list[Json]]] = []
    taken: set[str] = set()
    for v in virtual:
        routes = _routes(proxy, v, port, services)
        if not routes:
            continue
        names, matched = _split(v, services, listener.wildcard_index)
        matched = [s for s in matched if _http(s, port)]
        if matched or port == 80:
            wrapped.append((names, matched, routes))
            taken |= {s.hostname for s in matched}
    for service in services.values():
        if service.hostname not in taken and service.resolution != "ALIAS" and _http(service, port):
            cluster = envoy.outbound(service.hostname, port)
            wrapped.append(([], [service], [_default_route(cluster, f"{service.hostname}:{port}/*")]))
    return sorted(_named(proxy, wrapped, port), key=lambda v: str(v["name"]))


def _named(proxy: Proxy, wrapped: list[tuple[list[str], list[Service], list[Json]]], port: int) -> Iterable[Json]:
    """Gives each wrapper its domains: the first to claim one has it, but a full name is never an abbreviation."""
    known = {s.hostname for _, services, _ in wrapped for s in services}
    seen_names: set[str] = set()
    seen: set[str] = set()
    for names, services, routes in wrapped:
        entries = [(n.lower(), [n.lower()], set[str]()) for n in names]
        for s in services:
            domains, alternatives = _domains(proxy, s)
            entries.append((s.hostname, domains, alternatives))
        for host, domains, alternatives in entries:
            name = f"{host}:{port}"
            kept = [
                d for d in dict.fromkeys(domains) if d.lower() not in seen and not (d in alternatives and d in known)
            ]
            if name in seen_names or not kept:
                continue
            seen_names.add(name)
            seen |= {d.lower() for d in kept}
            yield {"name": name, "domains": kept, "routes": routes, "include_request_attempt_count": True}


def _domains(proxy: Proxy, service: Service) -> tuple[list[str], set[str]]:
    """Every Host header that means the service, and which of them are abbreviations (generateVirtualHostDomains)."""
    domains: list[str] = []
    short: list[str] = []
    for name in [service.hostname, *proxy.world.aliases(service.hostname)]:
        extra = hosts.alternatives(name, proxy.scope.domain)
        domains += [name, *extra]
        short += extra
    if service.resolution == "PASSTHROUGH" and service.kubernetes:
        domains += [f"*.{d}" for d in domains]
    domains += [f"[{a}]" if ":" in a else a for a in service.addresses if a != "0.0.0.0"]
    return domains, set(short)


def _http(service: Service, port: int) -> bool:
    found = service.port(port)
    return found is not None and (found.protocol in HTTP or found.protocol == AUTO)


def _concerns(virtual: Obj, services: dict[str, Service]) -> bool:
    """Whether any host of the virtual service is one of these services."""
    for host in (h.lower() for h in spec(virtual)["hosts"]):
        if host in services:
            return True
        if any((hosts.wildcarded(host) or hosts.wildcarded(s)) and hosts.matches(host, s) for s in services):
            return True
    return False


def _split(virtual: Obj, services: dict[str, Service], index: dict[str, str]) -> tuple[list[str], list[Service]]:
    """A virtual service's hosts: those that are no service, and the services (separateVSHostsAndServices)."""
    names: list[str] = []
    matched: list[Service] = []
    exact = [h for h in spec(virtual)["hosts"] if not hosts.wildcarded(h)]
    for host in exact:
        if host.lower() in services:
            matched.append(services[host.lower()])
        else:
            names.append(host)
    for host in (h.lower() for h in spec(virtual)["hosts"] if hosts.wildcarded(h)):
        fitting = [s for name, s in services.items() if hosts.matches(name, host)]
        matched += [s for s in fitting if index.get(s.hostname) == vs_key(virtual) and s not in matched]
        if not fitting:
            names.append(host)
    return names, matched


def destination_cluster(destination: Obj, service: Service | None, port: int) -> str:
    """The cluster that a destination names (GetDestinationCluster)."""
    host = destination.get("host", "")
    if not host:
        return "UnknownService"
    number = (destination.get("port") or {}).get("number")
    if number is None:
        number = service.ports[0].number if service and len(service.ports) == 1 else port
    return envoy.outbound(
        service.alias_for if service and service.alias_for else host, int(number), destination.get("subset", "")
    )


def _default_route(cluster: str, operation: str) -> Json:
    return {
        "name": "default",
        "match": {"prefix": "/"},
        "decorator": {"operation": operation},
        "route": {
            "cluster": cluster,
            "timeout": "0s",
            "retry_policy": RETRY,
            "max_stream_duration": {"max_stream_duration": "0s", "grpc_timeout_header_max": "0s"},
        },
    }


def _routes(proxy: Proxy, virtual: Obj, port: int, services: dict[str, Service]) -> list[Json]:
    """BuildHTTPRoutesForVirtualService: in order, until one takes everything."""
    out: list[Json] = []
    for entry in spec(virtual).get("http") or []:
        for match in entry.get("match") or [None]:
            if match is not None and not _from_here(match, proxy, port):
                continue
            route = _route(proxy.world, virtual, entry, match or {}, port, services)
            out.append(route)
            if match is None or _takes_all(route["match"]):
                return out
    return out


def _from_here(match: Obj, proxy: Proxy, port: int) -> bool:
    """The conditions of a match that a proxy can check before any request."""
    if match.get("port") and match["port"] != port:
        return False
    if match.get("gateways"):
        return "mesh" in match["gateways"]
    return hosts.labels_match(match.get("sourceLabels"), proxy.labels) and match.get("sourceNamespace") in (
        None,
        "",
        namespace_of(proxy.pod),
    )


def _takes_all(match: Json) -> bool:
    return match.get("prefix") == "/" and not match.get("headers") and not match.get("query_parameters")


def _string(match: Any) -> Json:
    match = match or {}
    if "exact" in match:
        return {"exact": match["exact"]}
    if "prefix" in match:
        return {"prefix": match["prefix"]}
    return {"safe_regex": {"regex": match.get("regex", ".*")}}


def _header(match: Any) -> Json:
    """A header's condition; nothing said, or the regular expression `*`, asks for its presence alone."""
    if not match or match.get("regex") == "*":
        return {"present_match": True}
    return {"string_match": _string(match)}


def _match(match: Obj) -> Json:
    """TranslateRouteMatch."""
    out: Json = {"prefix": "/"}
    uri = match.get("uri") or {}
    if "exact" in uri:
        out = {"path": uri["exact"]}
    elif "prefix" in uri:
        out = {"prefix": uri["prefix"]}
    elif "regex" in uri:
        out = {"safe_regex": {"regex": uri["regex"]}}
    if match.get("ignoreUriCase"):
        out["case_sensitive"] = False
    headers: list[Json] = []
    pseudo = ((":method", "method"), (":authority", "authority"), (":scheme", "scheme"))
    for name, value in [*(match.get("headers") or {}).items(), *((h, match[k]) for h, k in pseudo if match.get(k))]:
        headers.append({"name": name, **_header(value)})
    for name, value in (match.get("withoutHeaders") or {}).items():
        condition = _header(value)
        absent = {} if "present_match" in condition else {"treat_missing_header_as_empty": True}
        headers.append({"name": name, "invert_match": True, **condition, **absent})
    if headers:
        out["headers"] = headers
    if match.get("queryParams"):
        out["query_parameters"] = [{"name": n, "string_match": _string(v)} for n, v in match["queryParams"].items()]
    return out


def _route(world: World, virtual: Obj, entry: Obj, match: Obj, port: int, services: dict[str, Service]) -> Json:
    """TranslateRoute."""
    name = ".".join(filter(None, (entry.get("name"), match.get("name"))))
    out: Json = {
        "name": name or "default",
        "match": _match(match),
        "decorator": {"operation": f"{virtual['metadata']['name']}:{port}/*"},
    }
    _headers(out, entry.get("headers") or {})
    if entry.get("redirect") is not None:
        out["redirect"] = _redirect(entry["redirect"])
    elif entry.get("directResponse") is not None:
        answer = entry["directResponse"]
        body = (answer.get("body") or {}).get("string")
        out["direct_response"] = {"status": answer["status"], **({"body": {"inline_string": body}} if body else {})}
    else:
        out["route"] = _action(entry, port, services)
    if entry.get("fault"):
        out["typed_per_filter_config"] = {"envoy.filters.http.fault": _fault(entry["fault"])}
    return out


def _action(entry: Obj, port: int, services: dict[str, Service]) -> Json:
    def cluster(destination: Obj) -> str:
        return destination_cluster(destination, services.get(destination.get("host", "")), port)

    action: Json = {"timeout": entry.get("timeout") or "0s", "retry_policy": _retries(entry.get("retries"))}
    rewrite = entry.get("rewrite") or {}
    if rewrite.get("uri"):
        action["prefix_rewrite"] = rewrite["uri"]
    authority = rewrite.get("authority") or (((entry.get("headers") or {}).get("request") or {}).get("set") or {}).get(
        ":authority"
    )
    if authority:
        action["host_rewrite_literal"] = authority
    mirrors = [entry["mirror"]] if entry.get("mirror") else []
    mirrors += [m["destination"] for m in entry.get("mirrors") or []]
    if mirrors:
        action["request_mirror_policies"] = [{"cluster": cluster(m)} for m in mirrors]
    routes = entry.get("route") or []
    if len(routes) == 1:
        action["cluster"] = cluster(routes[0].get("destination") or {})
    else:
        action["weighted_clusters"] = {
            "clusters": [{"name": cluster(r["destination"]), "weight": r["weight"]} for r in routes if r.get("weight")]
        }
    return action


def _retries(policy: Obj | None) -> Json | None:
    if policy is None:
        return RETRY
    if not policy.get("attempts"):
        return None
    out = {**RETRY, "num_retries": policy["attempts"]}
    if policy.get("retryOn"):
        out["retry_on"] = policy["retryOn"]
    if policy.get("perTryTimeout"):
        out["per_try_timeout"] = policy["perTryTimeout"]
    return out


def _headers(out: Json, operations: Obj) -> None:
    for side in ("request", "response"):
        change = operations.get(side) or {}
        add = [
            {"header": {"key": k, "value": v}, "append_action": action}
            for field, action in (("set", "OVERWRITE_IF_EXISTS_OR_ADD"), ("add", "APPEND_IF_EXISTS_OR_ADD"))
            for k, v in (change.get(field) or {}).items()
            if not k.startswith(":") and k.lower() != "host"
        ]
        if add:
            out[f"{side}_headers_to_add"] = add
        if change.get("remove"):
            out[f"{side}_headers_to_remove"] = change["remove"]


def _redirect(redirect: Obj) -> Json:
    out: Json = {"response_code": REDIRECTS.get(redirect.get("redirectCode") or 301, "MOVED_PERMANENTLY")}
    for field, name in (
        ("authority", "host_redirect"),
        ("uri", "path_redirect"),
        ("scheme", "scheme_redirect"),
        ("port", "port_redirect"),
    ):
        if redirect.get(field):
            out[name] = redirect[field]
    return out


def _fault(fault: Obj) -> Json:
    def share(part: Obj) -> Json:
        return {"numerator": int((part.get("percentage") or {}).get("value", 100) * 10000), "denominator": "MILLION"}

    fields: Json = {}
    if fault.get("abort"):
        fields["abort"] = {"http_status": fault["abort"].get("httpStatus", 503), "percentage": share(fault["abort"])}
    if fault.get("delay"):
        fields["delay"] = {"fixed_delay": fault["delay"]["fixedDelay"], "percentage": share(fault["delay"])}
    return envoy.typed("filters.http.fault.v3.HTTPFault", **fields)
