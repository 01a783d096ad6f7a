"""Pod Security Standards: what baseline and restricted refuse, in the words of the admission plugin.

Each check takes a pod (metadata and spec) and returns its detail, or None when the pod is fine. CHECKS is in the order
of telling: baseline first. `restricted` asks all of them except those that a stricter one replaces. A namespace may name a version ("v1.29"): of each check the newest form counts that is
not newer than that.
"""
import functools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Object = dict[str, Any]
Judge = Callable[[Object, Object], str | None]
LEVELS = ("privileged", "baseline", "restricted")
PREFIX = "pod-security.kubernetes.io/"

_DEFAULT_CAPABILITIES = {"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD",
                         "NET_BIND_SERVICE", "SETFCAP", "SETGID",
                         "SETPCAP", "SETUID", "SYS_CHROOT"}
_SAFE_SYSCTLS = {"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies",
                 "net.ipv4.ping_group_range",
                 "net.ipv4.ip_unprivileged_port_start"}
_SAFE_27 = _SAFE_SYSCTLS | {"net.ipv4.ip_local_reserved_ports"}
_SAFE_29 = _SAFE_27 | {"net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
                       "net.ipv4.tcp_keepalive_probes"}
_SAFE_32 = _SAFE_29 | {"net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem", "net.ipv4.tcp_slow_start_after_idle",
                       "net.ipv4.tcp_notsent_lowat"}
_SELINUX_TYPES = {"", "container_t", "container_init_t", "container_kvm_t"}
_SELINUX_31 = _SELINUX_TYPES | {"container_engine_t"}
_FREE_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim",
                 "projected", "secret"}


def _containers(spec: Object) -> Iterator[Object]:
    for group in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(group) or ()


def _context(holder: Object) -> Object:
    return holder.get("securityContext") or {}


def _some(word: str, items: Iterable[str], plural: str = "") -> str:
    listed = list(items)
    return word if len(listed) == 1 else plural or word + "s"


def _quoted(items: Iterable[str]) -> str:
    return ", ".join(f'"{item}"' for item in items)


def _named(names: list[str]) -> str:
    return f"{_some('container', names)} {_quoted(names)}"


def _bad(spec: Object, wrong: Callable[[Object], Any]) -> list[str]:
    return [container.get("name", "") for container in _containers(spec) if wrong(container)]


def _setters(pod: bool, names: list[str]) -> str:
    return " and ".join([*(["pod"] if pod else []), *([_named(names)] if names else [])])


def _app_armor(metadata: Object, spec: Object) -> str | None:
    def kind(holder: Object) -> str:
        return str((_context(holder).get("appArmorProfile") or {}).get("type", "RuntimeDefault"))
    fine = ("RuntimeDefault", "Localhost")
    names, values = _bad(spec, lambda one: kind(one) not in fine), {kind(one)
                                                                    for one in [spec, *_containers(spec)]} - set(fine)
    notes = sorted(f'{key}="{text}"' for key, text in (metadata.get("annotations") or {}).items()
                   if key.startswith("container.apparmor.security.beta.kubernetes.io/") and text != "runtime/default"
                   and text and not text.startswith("localhost/"))
    setters = [text for text in (_setters(kind(spec) not in fine, names), _some("annotation", notes) if notes else "")
               if text]
    told = f"{' and '.join(setters)} must not set AppArmor profile type to {_quoted([*sorted(values), *notes])}"
    return told if setters else None


def _capabilities(_: Object, spec: Object) -> str | None:
    def added(container: Object) -> set[str]:
        return set((_context(container).get("capabilities") or {}).get("add") or ()) - _DEFAULT_CAPABILITIES
    names = _bad(spec, added)
    values = sorted(set().union(*(added(one) for one in _containers(spec)))) if names else []
    return f"{_named(names)} must not include {_quoted(values)} in securityContext.capabilities.add" if names else None


def _host_namespaces(_: Object, spec: Object) -> str | None:
    return ", ".join(f"{key}=true" for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)) or None


def _host_path(_: Object, spec: Object) -> str | None:
    names = [volume["name"] for volume in spec.get("volumes") or () if "hostPath" in volume]
    return f"{_some('volume', names)} {_quoted(names)}" if names else None


def _host_ports(_: Object, spec: Object) -> str | None:
    names = _bad(spec, lambda one: any(port.get("hostPort") for port in one.get("ports") or ()))
    ports = sorted({str(port["hostPort"]) for one in _containers(spec) for port in one.get("ports") or ()
                    if port.get("hostPort")})
    told = f"{_named(names)} {_some('uses', names, 'use')} {_some('hostPort', ports)} {', '.join(ports)}"
    return told if names else None


def _probe_hosts(_: Object, spec: Object) -> str | None:
    def hosts(container: Object) -> set[str]:
        handlers = [container.get(name) or {} for name in ("livenessProbe", "readinessProbe", "startupProbe")]
        handlers += [handler for handler in (container.get("lifecycle") or {}).values() if isinstance(handler, dict)]
        return {(handler.get(kind) or {}).get("host", "") for handler in handlers
                for kind in ("httpGet", "tcpSocket")} - {""}
    names = sorted(_bad(spec, hosts))
    values = sorted(set().union(*(hosts(one) for one in _containers(spec)))) if names else []
    return (f"{_named(names)} {_some('uses', names, 'use')} {_some('probe or lifecycle host', values)} "
            f"{_quoted(values)}"
            if names else None)


def _privileged(_: Object, spec: Object) -> str | None:
    names = _bad(spec, lambda one: _context(one).get("privileged"))
    return f"{_named(names)} must not set securityContext.privileged=true" if names else None


def _proc_mount(_: Object, spec: Object) -> str | None:
    def kind(container: Object) -> str:
        return str(_context(container).get("procMount", "Default"))
    names = _bad(spec, lambda one: kind(one) != "Default")
    values = sorted({kind(one) for one in _containers(spec)} - {"Default"})
    return f"{_named(names)} must not set securityContext.procMount to {_quoted(values)}" if names else None


def _se_linux(_: Object, spec: Object, known: set[str] = _SELINUX_TYPES) -> str | None:
    def options(holder: Object) -> Object:
        return _context(holder).get("seLinuxOptions") or {}

    def wrong(holder: Object) -> bool:
        held = options(holder)
        return held.get("type", "") not in known or bool(held.get("user")) or bool(held.get("role"))
    names = _bad(spec, wrong)
    setters = _setters(wrong(spec), names)
    if not setters:
        return None
    holders = [spec, *_containers(spec)]
    types = sorted({options(one).get("type", "") for one in holders} - known)
    data = [f"{_some('type', types)} {_quoted(types)}"] if types else []
    data += [f"{key} may not be set" for key in ("user", "role") if any(options(one).get(key) for one in holders)]
    return f"{setters} set forbidden securityContext.seLinuxOptions: {'; '.join(data)}"


def _seccomp(holder: Object) -> str | None:
    return (_context(holder).get("seccompProfile") or {}).get("type")


def _seccomp_baseline(_: Object, spec: Object) -> str | None:
    fine = (None, "RuntimeDefault", "Localhost")
    names = _bad(spec, lambda one: _seccomp(one) not in fine)
    setters = _setters(_seccomp(spec) not in fine, names)
    values = sorted(kind for kind in {_seccomp(one) for one in [spec, *_containers(spec)]} if kind not in fine)
    return f"{setters} must not set securityContext.seccompProfile.type to {_quoted(values)}" if setters else None


def _sysctls(_: Object, spec: Object, safe: set[str] = _SAFE_SYSCTLS) -> str | None:
    names = [item["name"] for item in _context(spec).get("sysctls") or () if item["name"] not in safe]
    return ", ".join(names) or None


def _host_process(_: Object, spec: Object) -> str | None:
    def set_(holder: Object) -> bool:
        return bool((_context(holder).get("windowsOptions") or {}).get("hostProcess"))
    setters = _setters(set_(spec), _bad(spec, set_))
    return f"{setters} must not set securityContext.windowsOptions.hostProcess=true" if setters else None


def _escalation(_: Object, spec: Object) -> str | None:
    names = _bad(spec, lambda one: _context(one).get("allowPrivilegeEscalation") is not False)
    return f"{_named(names)} must set securityContext.allowPrivilegeEscalation=false" if names else None


def _capabilities_restricted(_: Object, spec: Object) -> str | None:
    def held(container: Object, key: str) -> set[str]:
        return set((_context(container).get("capabilities") or {}).get(key) or ())
    keeping, adding = _bad(spec, lambda one: "ALL"
                           not in held(one, "drop")), _bad(spec, lambda one: held(one, "add") - {"NET_BIND_SERVICE"})
    values = sorted(set().union(*(held(one, "add")
                                  for one in _containers(spec))) - {"NET_BIND_SERVICE"}) if adding else []
    return "; ".join([*([f'{_named(keeping)} must set securityContext.capabilities.drop=["ALL"]'] if keeping else []),
                      *([f"{_named(adding)} must not include {_quoted(values)} in securityContext.capabilities.add"]
                        if adding else [])]) or None


def _volumes(_: Object, spec: Object) -> str | None:
    bad = [volume for volume in spec.get("volumes") or () if not set(volume) & _FREE_VOLUMES]
    kinds = sorted({next(iter(set(volume) - {"name"}), "unknown") for volume in bad})
    names = [volume["name"] for volume in bad]
    return (f"{_some('volume', names)} {_quoted(names)} {_some('uses', names, 'use')} "
            f"{_some('restricted volume type', kinds)} {_quoted(kinds)}"
            if bad else None)


def _non_root(_: Object, spec: Object) -> str | None:
    of_pod = _context(spec).get("runAsNonRoot")
    setters = _setters(of_pod is False, _bad(spec, lambda one: _context(one).get("runAsNonRoot") is False))
    if setters:
        return f"{setters} must not set securityContext.runAsNonRoot=false"
    names = _bad(spec, lambda one: _context(one).get("runAsNonRoot") is None and not of_pod)
    return f"pod or {_named(names)} must set securityContext.runAsNonRoot=true" if names else None


def _root_user(_: Object, spec: Object) -> str | None:
    setters = _setters(_context(spec).get("runAsUser") == 0,
                       _bad(spec, lambda one: _context(one).get("runAsUser") == 0))
    return f"{setters} must not set runAsUser=0" if setters else None


def _seccomp_restricted(metadata: Object, spec: Object) -> str | None:
    explicit = _seccomp_baseline(metadata, spec)
    if explicit:
        return explicit
    names = _bad(spec, lambda one: _seccomp(one) is None and _seccomp(spec) is None)
    told = f'pod or {_named(names)} must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
    return told if names else None


def _unless_windows(check: Judge) -> Judge:
    return lambda metadata, spec: None if (spec.get("os") or {}).get("name") == "windows" else check(metadata, spec)


def _unless_own_users(check: Judge) -> Judge:
    """A pod in a user namespace of its own may do more."""
    return lambda metadata, spec: None if spec.get("hostUsers") is False else check(metadata, spec)


Check = tuple[str, str, int, Judge, bool]
CHECKS: tuple[Check, ...] = (
    ("baseline", "forbidden AppArmor profile", 0, _app_armor, True),
    ("baseline", "non-default capabilities", 0, _capabilities, False),
    ("baseline", "host namespaces", 0, _host_namespaces, True),
    ("baseline", "hostPath volumes", 0, _host_path, False),
    ("baseline", "hostPort", 0, _host_ports, True),
    ("baseline", "probe or lifecycle host", 34, _probe_hosts, True),
    ("baseline", "privileged", 0, _privileged, True),
    ("baseline", "procMount", 0, _proc_mount, True),
    ("baseline", "procMount", 35, _unless_own_users(_proc_mount), False),
    ("baseline", "seLinuxOptions", 0, _se_linux, True),
    ("baseline", "seLinuxOptions", 31, functools.partial(_se_linux, known=_SELINUX_31), True),
    ("baseline", "seccompProfile", 0, _seccomp_baseline, False),
    ("baseline", "forbidden sysctls", 0, _sysctls, True),
    ("baseline", "forbidden sysctls", 27, functools.partial(_sysctls, safe=_SAFE_27), True),
    ("baseline", "forbidden sysctls", 29, functools.partial(_sysctls, safe=_SAFE_29), True),
    ("baseline", "forbidden sysctls", 32, functools.partial(_sysctls, safe=_SAFE_32), True),
    ("baseline", "hostProcess", 0, _host_process, True),
    ("restricted", "allowPrivilegeEscalation != false", 8, _escalation, True),
    ("restricted", "allowPrivilegeEscalation != false", 25, _unless_windows(_escalation), True),
    ("restricted", "unrestricted capabilities", 22, _capabilities_restricted, True),
    ("restricted", "unrestricted capabilities", 25, _unless_windows(_capabilities_restricted), True),
    ("restricted", "restricted volume types", 0, _volumes, True),
    ("restricted", "runAsNonRoot != true", 0, _non_root, True),
    ("restricted", "runAsNonRoot != true", 35, _unless_own_users(_non_root), True),
    ("restricted", "runAsUser=0", 23, _root_user, True),
    ("restricted", "runAsUser=0", 35, _unless_own_users(_root_user), True),
    ("restricted", "seccompProfile", 19, _seccomp_restricted, True),
    ("restricted", "seccompProfile", 25, _unless_windows(_seccomp_restricted), True))
"""(level, reason, minor version that it came with, check, whether `restricted` asks it too)"""


def violations(level: str, version: str, metadata: Object, spec: Object) -> list[tuple[str, str]]:
    """(reason, detail) of everything that `level` refuses in a pod."""
    if level == "privileged":
        return []
    found = re.fullmatch(r"v1\.(\d+)", version)
    minor = int(found[1]) if found else 1_000
    asked = {reason: check for of, reason, since, check, both in CHECKS
             if since <= minor and (of == "baseline" if level == "baseline" else both)}
    return [(reason, detail) for reason, check in asked.items() if (detail := check(metadata, spec))]


def told(found: list[tuple[str, str]]) -> str:
    return ", ".join(f"{reason} ({detail})" for reason, detail in found)


def policy(namespace: Object, mode: str) -> tuple[str, str]:
    """(level, version) that a namespace's labels set for enforce or warn."""
    labels = (namespace.get("metadata") or {}).get("labels") or {}
    level = labels.get(PREFIX + mode, "privileged")
    if mode == "warn" and PREFIX + mode not in labels and labels.get(f"{PREFIX}enforce") in LEVELS[1:]:
        level, version = policy(namespace, "enforce")
        return level, labels.get(f"{PREFIX}warn-version", version)
    return (level if level in LEVELS else "restricted" if mode == "enforce"
            else "privileged"), labels.get(f"{PREFIX}{mode}-version", "latest")


def judge(namespace: Object, metadata: Object, spec: Object, *, enforce: bool) -> tuple[str, list[str]]:
    """(refusal or "", warnings) for a pod, or for a template with enforce=False."""
    level, version = policy(namespace, "enforce")
    found = violations(level, version, metadata, spec) if enforce else []
    if found:
        return f'violates PodSecurity "{level}:{version}": {told(found)}', []
    level, version = policy(namespace, "warn")
    found = violations(level, version, metadata, spec)
    return "", [f'would violate PodSecurity "{level}:{version}": {told(found)}'] if found else []


def namespace_warnings(old: Object, new: Object, pods: list[Object]) -> list[str]:
    """What a namespace's running pods violate when its enforce level becomes stricter."""
    before, after = policy(old, "enforce"), policy(new, "enforce")
    if before == after or (before[1] == after[1] and LEVELS.index(after[0]) <= LEVELS.index(before[0])):
        return []
    held: dict[str, list[str]] = {}
    for pod in pods:
        found = violations(*after, pod["metadata"], pod["spec"])
        if found:
            held.setdefault(", ".join(reason for reason, _ in found), []).append(pod["metadata"]["name"])
    if not held:
        return []
    name = new["metadata"]["name"]

    def others(names: list[str]) -> str:
        return "" if len(names) == 1 else f" (and {len(names) - 1} other pod{'' if len(names) == 2 else 's'})"
    lines = sorted(f"{min(names)}{others(names)}: {reason}" for reason, names in held.items())
    return [f'existing pods in namespace "{name}" violate the new PodSecurity enforce level "{after[0]}:{after[1]}"',
            *lines]
