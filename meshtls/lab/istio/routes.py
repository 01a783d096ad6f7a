"""Which cluster an outbound HTTP request goes to: virtual hosts per port, from services and virtual services
(pilot/pkg/networking/core httproute.go, core/route).

A service without a virtual service has one default route. Host names, short names and addresses lead to a virtual
host; a host that nothing knows goes to PassthroughCluster, or gets 502 under REGISTRY_ONLY.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from meshtls.lab.istio import envoy, filters, hosts
from meshtls.lab.istio.envoy import Json
from meshtls.lab.istio.filters import Proxy
from meshtls.lab.istio.objects import AUTO, HTTP, Obj, Service, at
from meshtls.lab.istio.scope import Listener, Scope
from meshtls.lab.istio.virtualservice import VirtualService

Wrapped = tuple[list[str], list[Service], list[Json]]
"""Names that are no service, services, and the routes of both."""

RETRY: Json = {
    "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
    "num_retries": 2,
    "host_selection_retry_max_attempts": 5,
    "retry_host_predicate": [envoy.extension("retry.host.previous_hosts.v3.PreviousHostsPredicate")],
}
REDIRECTS = {302: "FOUND", 303: "SEE_OTHER", 307: "TEMPORARY_REDIRECT", 308: "PERMANENT_REDIRECT"}


def for_listener(proxy: Proxy, port: int, sniffed_host: str = "") -> Json:
    """A listener's route table: all hosts of a port, or with `sniffed_host` that service alone, under any name."""
    if port not in proxy.virtual_hosts:
        proxy.virtual_hosts[port] = _virtual_hosts(proxy, port)
    name, chosen = str(port), [*proxy.virtual_hosts[port], _catch_all(proxy.scope)]
    if sniffed_host:
        name = f"{sniffed_host}:{port}"
        chosen = [v for v in proxy.virtual_hosts[port] if sniffed_host in v["domains"]]
        if len(chosen) == 1:
            chosen = [chosen[0] | {"domains": ["*"]}]
    return {
        "name": name,
        "virtual_hosts": chosen,
        "validate_clusters": False,
        "ignore_port_in_host_matching": True,
        "max_direct_response_body_size_bytes": 1 << 20,
    }


def _virtual_host(name: str, domains: list[str], routes: list[Json]) -> Json:
    return {"name": name, "domains": domains, "routes": routes, "include_request_attempt_count": True}


def _catch_all(scope: Scope) -> Json:
    """The virtual host for names that nothing knows."""
    blocks = scope.unclaimed == envoy.BLACKHOLE
    route: Json = {"name": "block_all" if blocks else "allow_any", "match": {"prefix": "/"}}
    if blocks:
        route["direct_response"] = {"status": 502}
    else:
        route["route"] = {"cluster": scope.unclaimed, "timeout": "0s"}
    return _virtual_host(route["name"], ["*"], [route])


def _virtual_hosts(proxy: Proxy, port: int) -> list[Json]:
    """BuildSidecarOutboundVirtualHosts; the first egress listener for the port says what may be named
    (GetEgressListenerForRDS)."""
    listener = next((e for e in proxy.scope.listeners if e.port in (0, port)), None)
    if listener is None:
        return []
    services = {s.hostname.lower(): s for s in listener.services if s.port(port)}
    wrapped: list[Wrapped] = []
    taken: set[str] = set()
    for v in listener.virtual_services:
        routes = list(_routes(proxy, v, port, services)) if port == 80 or _concerns(v, services) else []
        names, found = _split(v, services, listener) if routes else ([], [])
        matched = [s for s in found if _http(s, port)]
        if routes and (matched or port == 80):
            wrapped.append((names, matched, routes))
            taken |= {s.hostname for s in matched}
    for service in services.values():
        if service.hostname not in taken and service.resolution != "ALIAS" and _http(service, port):
            whole = filters.default_route(envoy.outbound(service.hostname, port), f"{service.hostname}:{port}/*", RETRY)
            wrapped.append(([], [service], [whole]))
    return sorted(_named(proxy, wrapped, port), key=lambda v: str(v["name"]))


def _named(proxy: Proxy, wrapped: list[Wrapped], port: int) -> Iterable[Json]:
    """Gives each wrapper its domains: the first to claim one has it, but a full name is never an abbreviation."""
    known = {s.hostname for _, services, _ in wrapped for s in services}
    seen_names: set[str] = set()
    seen: set[str] = set()
    for names, services, routes in wrapped:
        plain = ((n, [n], set[str]()) for n in names)
        for host, domains, alternatives in (*plain, *((s.hostname, *_domains(proxy, s)) for s in services)):
            fresh = (d for d in dict.fromkeys(domains) if d.lower() not in seen)
            kept = [d for d in fresh if not (d in alternatives and d in known)]
            if kept and host not in seen_names:
                seen_names.add(host)
                seen |= {d.lower() for d in kept}
                yield _virtual_host(f"{host}:{port}", kept, routes)


def _domains(proxy: Proxy, service: Service) -> tuple[list[str], set[str]]:
    """Every Host header that means the service, and which of them are abbreviations (generateVirtualHostDomains)."""
    domains: list[str] = []
    short: set[str] = set()
    for name in [service.hostname, *proxy.world.aliases.get(service.hostname, ())]:
        extra = hosts.alternatives(name, proxy.scope.domain)
        domains += [name, *extra]
        short |= set(extra)
    if service.resolution == "PASSTHROUGH" and service.kubernetes:
        domains += [f"*.{d}" for d in domains]
    domains += [f"[{a}]" if ":" in a else a for a in service.addresses if a != "0.0.0.0"]
    return domains, short


def _http(service: Service, port: int) -> bool:
    found = service.port(port)
    return found is not None and (found.protocol in HTTP or found.protocol == AUTO)


def _concerns(virtual: VirtualService, services: Mapping[str, Service]) -> bool:
    """Whether any host of the virtual service is one of these services."""
    names = [h.lower() for h in virtual.hosts]
    return any(h in services for h in names) or any(hosts.matches(h, s) for h in names for s in services)


def _split(virtual: VirtualService, services: Mapping[str, Service], listener: Listener) -> tuple[list[str], list[Service]]:
    """A virtual service's hosts: those that are no service, and the services (separateVSHostsAndServices); a wildcard
    has those that no other virtual service fits better."""
    names: list[str] = []
    matched: dict[str, Service] = {}
    for host in sorted(map(str.lower, virtual.hosts), key=hosts.wildcarded):
        wild = hosts.wildcarded(host)
        fitting = [s for n, s in services.items() if (hosts.matches(n, host) if wild else n == host)]
        for s in fitting:
            if not wild or hosts.most_specific(s.hostname, listener.by_host) is virtual:
                matched.setdefault(s.hostname, s)
        if not fitting:
            names.append(host)
    return names, list(matched.values())


def target(destinations: list[Obj], services: Mapping[str, Service], port: int) -> Json:
    """The cluster that a route's one destination names, or its destinations by weight."""

    def cluster(route: Obj) -> str:
        return _cluster(route.get("destination") or {}, services, port)

    if len(destinations) == 1:
        return {"cluster": cluster(destinations[0])}
    weighted = [{"name": cluster(d), "weight": d["weight"]} for d in destinations if d.get("weight")]
    return {"weighted_clusters": {"clusters": weighted}}


def _cluster(destination: Obj, services: Mapping[str, Service], port: int) -> str:
    """GetDestinationCluster."""
    host, number = destination.get("host", ""), at(destination, "port", "number")
    if not host:
        return "UnknownService"
    service = services.get(host)
    if number is None:
        number = service.ports[0].number if service and len(service.ports) == 1 else port
    name = service.alias_for if service and service.alias_for else host
    return envoy.outbound(name, int(number), destination.get("subset", ""))


def _routes(proxy: Proxy, virtual: VirtualService, port: int, services: Mapping[str, Service]) -> Iterator[Json]:
    """BuildHTTPRoutesForVirtualService: in order, until one takes everything."""
    for entry in virtual.routes["http"]:
        for match in entry.get("match") or [{}]:
            if not proxy.meets(match, port, http=True):
                continue
            route = _route(virtual, entry, match, port, services)
            yield route
            condition = route["match"]
            if condition.get("prefix") == "/" and not condition.keys() & {"headers", "query_parameters"}:
                return


def _string(match: Any) -> Json:
    for kind in ("exact", "prefix"):
        if kind in (match or {}):
            return {kind: match[kind]}
    return {"safe_regex": {"regex": (match or {}).get("regex", ".*")}}


def _header(match: Any) -> Json:
    """A header's condition; nothing said, or the regular expression `*`, asks for its presence alone."""
    return {"present_match": True} if not match or match.get("regex") == "*" else {"string_match": _string(match)}


def _match(match: Obj) -> Json:
    """TranslateRouteMatch."""
    out = _string(match.get("uri") or {"prefix": "/"})
    if "exact" in out:
        out = {"path": out["exact"]}
    if match.get("ignoreUriCase"):
        out["case_sensitive"] = False
    pseudo = {f":{k}": match[k] for k in ("method", "authority", "scheme") if match.get(k)}
    headers = [{"name": n, **_header(v)} for n, v in [*(match.get("headers") or {}).items(), *pseudo.items()]]
    for name, value in (match.get("withoutHeaders") or {}).items():
        condition = _header(value)
        absent = {} if "present_match" in condition else {"treat_missing_header_as_empty": True}
        headers.append({"name": name, "invert_match": True, **condition, **absent})
    if headers:
        out["headers"] = headers
    if match.get("queryParams"):
        out["query_parameters"] = [{"name": n, "string_match": _string(v)} for n, v in match["queryParams"].items()]
    return out


def _route(virtual: VirtualService, entry: Obj, match: Obj, port: int, services: Mapping[str, Service]) -> Json:
    """TranslateRoute."""
    name = ".".join(filter(None, (entry.get("name"), match.get("name"))))
    out: Json = {
        "name": name or "default",
        "match": _match(match),
        "decorator": {"operation": f"{virtual.name}:{port}/*"},
        **_headers(entry.get("headers") or {}),
    }
    answer = entry.get("directResponse")
    if entry.get("redirect") is not None:
        out["redirect"] = _redirect(entry["redirect"])
    elif answer is not None:
        body = at(answer, "body", "string")
        out["direct_response"] = {"status": answer["status"], **({"body": {"inline_string": body}} if body else {})}
    else:
        out["route"] = _action(entry, port, services)
    if entry.get("fault"):
        out["typed_per_filter_config"] = {"envoy.filters.http.fault": _fault(entry["fault"])}
    return out


def _action(entry: Obj, port: int, services: Mapping[str, Service]) -> Json:
    action: Json = {"timeout": entry.get("timeout") or "0s", "retry_policy": _retries(entry.get("retries"))}
    path = at(entry, "rewrite", "uri")
    authority = at(entry, "rewrite", "authority") or at(entry, "headers", "request", "set", ":authority")
    mirrors = [entry.get("mirror"), *(m["destination"] for m in entry.get("mirrors") or [])]
    policies = [{"cluster": _cluster(m, services, port)} for m in mirrors if m]
    fields = {"prefix_rewrite": path, "host_rewrite_literal": authority, "request_mirror_policies": policies}
    return action | {k: v for k, v in fields.items() if v} | target(entry.get("route") or [], services, port)


def _retries(policy: Obj | None) -> Json | None:
    if policy is None:
        return RETRY
    if not policy.get("attempts"):
        return None
    given = {"retry_on": policy.get("retryOn"), "per_try_timeout": policy.get("perTryTimeout")}
    return {**RETRY, "num_retries": policy["attempts"], **{k: v for k, v in given.items() if v}}


def _headers(operations: Obj) -> Json:
    out: Json = {}
    for side in ("request", "response"):
        change = operations.get(side) or {}
        add = [
            {"header": {"key": k, "value": v}, "append_action": action}
            for field, action in (("set", "OVERWRITE_IF_EXISTS_OR_ADD"), ("add", "APPEND_IF_EXISTS_OR_ADD"))
            for k, v in (change.get(field) or {}).items()
            if not k.startswith(":") and k.lower() != "host"
        ]
        fields = {f"{side}_headers_to_add": add, f"{side}_headers_to_remove": change.get("remove")}
        out |= {k: v for k, v in fields.items() if v}
    return out


def _redirect(redirect: Obj) -> Json:
    code = REDIRECTS.get(redirect.get("redirectCode") or 301, "MOVED_PERMANENTLY")
    fields = {"authority": "host_redirect", "uri": "path_redirect", "scheme": "scheme_redirect", "port": "port_redirect"}
    return {"response_code": code, **{name: redirect[f] for f, name in fields.items() if redirect.get(f)}}


def _fault(fault: Obj) -> Json:
    def share(part: Obj) -> Json:
        percent = (part.get("percentage") or {}).get("value", 100)
        return {"percentage": {"numerator": int(percent * 10000), "denominator": "MILLION"}}

    fields: Json = {}
    if fault.get("abort"):
        fields["abort"] = {"http_status": fault["abort"].get("httpStatus", 503), **share(fault["abort"])}
    if fault.get("delay"):
        fields["delay"] = {"fixed_delay": fault["delay"]["fixedDelay"], **share(fault["delay"])}
    return envoy.typed("filters.http.fault.v3.HTTPFault", **fields)
