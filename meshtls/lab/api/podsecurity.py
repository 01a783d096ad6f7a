"""Pod Security Standards: what baseline and restricted refuse, in the words of the admission plugin.

Each check takes a pod (metadata and spec) and returns its detail, or None when the pod is fine. CHECKS is in the order
of telling: baseline first. `restricted` asks all of them except those that a stricter one replaces. A namespace may name a version ("v1.29"): of each check the newest form counts that is
not newer than that.
"""
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


def _at(holder: Object, path: str) -> Any:
    found: Any = holder
    for key in path.split("."):
        found = (found or {}).get(key)
    return found


def _some(word: str, items: Iterable[str], plural: str = "") -> str:
    return word if len(list(items)) == 1 else plural or word + "s"


def _quoted(items: Iterable[Any]) -> str:
    return ", ".join(f'"{item}"' for item in items)


def _bad(spec: Object, wrong: Callable[[Object], Any]) -> list[str]:
    return [container.get("name", "") for container in _containers(spec) if wrong(container)]


def _setters(pod: bool, names: list[str]) -> str:
    return " and ".join([*(["pod"] if pod else []), *([f"{_some('container', names)} {_quoted(names)}"] if names else [])])


def _refuses(path: str, told: str, wrong: Callable[[Any], bool], *, pod: bool) -> Judge:
    """The value (each of a list) below `path` in a container, or with `pod` also in the pod, must not be wrong. In what
    is told {who} stands for those that set it, {what} for the values."""
    def values(holder: Object) -> list[Any]:
        value = _at(holder, path)
        return [one for one in (value if isinstance(value, list) else [value]) if wrong(one)]

    def judge(_: Object, spec: Object) -> str | None:
        who = _setters(pod and bool(values(spec)), _bad(spec, values))
        found = {one for holder in [*([spec] if pod else []), *_containers(spec)] for one in values(holder)}
        return told.format(who=who, what=_quoted(sorted(found, key=str))) if who else None
    return judge


def _demands(path: str, told: str) -> Judge:
    """The pod, or else each container, sets what is below `path`."""
    def judge(_: Object, spec: Object) -> str | None:
        names = _bad(spec, lambda one: _at(one, path) is None and _at(spec, path) is None)
        return f"pod or {_setters(False, names)} must set {told}" if names else None
    return judge


def _first(*judges: Judge) -> Judge:
    return lambda metadata, spec: next((told for judge in judges if (told := judge(metadata, spec))), None)


def _app_armor(metadata: Object, spec: Object) -> str | None:
    def kind(holder: Object) -> str:
        return str(_at(holder, "securityContext.appArmorProfile.type") or "RuntimeDefault")
    fine = ("RuntimeDefault", "Localhost")
    values = {kind(one) for one in [spec, *_containers(spec)]} - set(fine)
    notes = sorted(f'{key}="{text}"' for key, text in (metadata.get("annotations") or {}).items()
                   if key.startswith("container.apparmor.security.beta.kubernetes.io/") and text != "runtime/default"
                   and text and not text.startswith("localhost/"))
    setters = [_setters(kind(spec) not in fine, _bad(spec, lambda one: kind(one) not in fine)),
               _some("annotation", notes) if notes else ""]
    told = f"{' and '.join(filter(None, setters))} must not set AppArmor profile type to {_quoted([*sorted(values), *notes])}"
    return told if any(setters) else None


def _host_namespaces(_: Object, spec: Object) -> str | None:
    return ", ".join(f"{key}=true" for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)) or None


def _host_path(_: Object, spec: Object) -> str | None:
    names = [volume["name"] for volume in spec.get("volumes") or () if "hostPath" in volume]
    return f"{_some('volume', names)} {_quoted(names)}" if names else None


def _uses(what: str, of: Callable[[Object], set[str]], show: Callable[[list[str]], str]) -> Judge:
    def judge(_: Object, spec: Object) -> str | None:
        names, values = sorted(_bad(spec, of)), sorted(set().union(*map(of, _containers(spec))))
        return (f"{_setters(False, names)} {_some('uses', names, 'use')} {_some(what, values)} {show(values)}" if names
                else None)
    return judge


def _host_ports(container: Object) -> set[str]:
    return {str(port["hostPort"]) for port in container.get("ports") or () if port.get("hostPort")}


def _probe_hosts(container: Object) -> set[str]:
    handlers = [container.get(name) or {} for name in ("livenessProbe", "readinessProbe", "startupProbe")]
    handlers += [handler for handler in (container.get("lifecycle") or {}).values() if isinstance(handler, dict)]
    return {_at(handler, f"{kind}.host") or "" for handler in handlers for kind in ("httpGet", "tcpSocket")} - {""}


def _se_linux(known: set[str]) -> Judge:
    def options(holder: Object) -> Object:
        return _at(holder, "securityContext.seLinuxOptions") or {}

    def wrong(holder: Object) -> bool:
        held = options(holder)
        return held.get("type", "") not in known or bool(held.get("user")) or bool(held.get("role"))

    def judge(_: Object, spec: Object) -> str | None:
        holders, setters = [spec, *_containers(spec)], _setters(wrong(spec), _bad(spec, wrong))
        types = sorted({options(one).get("type", "") for one in holders} - known)
        data = [f"{_some('type', types)} {_quoted(types)}"] if types else []
        data += [f"{key} may not be set" for key in ("user", "role") if any(options(one).get(key) for one in holders)]
        return f"{setters} set forbidden securityContext.seLinuxOptions: {'; '.join(data)}" if setters else None
    return judge


def _sysctls(safe: set[str]) -> Judge:
    return lambda _, spec: ", ".join(item["name"] for item in _at(spec, "securityContext.sysctls") or ()
                                     if item["name"] not in safe) or None


def _capabilities_restricted(metadata: Object, spec: Object) -> str | None:
    keeping = _bad(spec, lambda one: "ALL" not in (_at(one, "securityContext.capabilities.drop") or ()))
    told = [f'{_setters(False, keeping)} must set securityContext.capabilities.drop=["ALL"]' if keeping else None,
            _adds({"NET_BIND_SERVICE"})(metadata, spec)]
    return "; ".join(filter(None, told)) or None


def _adds(known: set[str]) -> Judge:
    return _refuses("securityContext.capabilities.add", "{who} must not include {what} in securityContext.capabilities.add",
                    lambda one: one is not None and one not in known, pod=False)


def _volumes(_: Object, spec: Object) -> str | None:
    bad = [volume for volume in spec.get("volumes") or () if not set(volume) & _FREE_VOLUMES]
    kinds = sorted({next(iter(set(volume) - {"name"}), "unknown") for volume in bad})
    names = [volume["name"] for volume in bad]
    return (f"{_some('volume', names)} {_quoted(names)} {_some('uses', names, 'use')} "
            f"{_some('restricted volume type', kinds)} {_quoted(kinds)}"
            if bad else None)


_proc_mount = _refuses("securityContext.procMount", "{who} must not set securityContext.procMount to {what}",
                       lambda kind: kind not in (None, "Default"), pod=False)
_seccomp = _refuses("securityContext.seccompProfile.type", "{who} must not set securityContext.seccompProfile.type to {what}",
                    lambda kind: kind not in (None, "RuntimeDefault", "Localhost"), pod=True)
_seccomp_restricted = _first(_seccomp, _demands("securityContext.seccompProfile.type", "securityContext.seccompProfile."
                                                'type to "RuntimeDefault" or "Localhost"'))
_escalation = _refuses("securityContext.allowPrivilegeEscalation",
                       "{who} must set securityContext.allowPrivilegeEscalation=false", lambda may: may is not False,
                       pod=False)
_non_root = _first(
    _refuses("securityContext.runAsNonRoot", "{who} must not set securityContext.runAsNonRoot=false",
             lambda must: must is False, pod=True),
    _demands("securityContext.runAsNonRoot", "securityContext.runAsNonRoot=true"))
_root_user = _refuses("securityContext.runAsUser", "{who} must not set runAsUser=0", lambda user: user == 0, pod=True)


def _unless_windows(check: Judge) -> Judge:
    return lambda metadata, spec: None if _at(spec, "os.name") == "windows" else check(metadata, spec)


def _unless_own_users(check: Judge) -> Judge:
    """A pod in a user namespace of its own may do more."""
    return lambda metadata, spec: None if spec.get("hostUsers") is False else check(metadata, spec)


Check = tuple[str, str, int, Judge, bool]
CHECKS: tuple[Check, ...] = (
    ("baseline", "forbidden AppArmor profile", 0, _app_armor, True),
    ("baseline", "non-default capabilities", 0, _adds(_DEFAULT_CAPABILITIES), False),
    ("baseline", "host namespaces", 0, _host_namespaces, True),
    ("baseline", "hostPath volumes", 0, _host_path, False),
    ("baseline", "hostPort", 0, _uses("hostPort", _host_ports, ", ".join), True),
    ("baseline", "probe or lifecycle host", 34, _uses("probe or lifecycle host", _probe_hosts, _quoted), True),
    ("baseline", "privileged", 0, _refuses("securityContext.privileged", "{who} must not set "
                                          "securityContext.privileged=true", bool, pod=False), True),
    ("baseline", "procMount", 0, _proc_mount, True),
    ("baseline", "procMount", 35, _unless_own_users(_proc_mount), False),
    ("baseline", "seLinuxOptions", 0, _se_linux(_SELINUX_TYPES), True),
    ("baseline", "seLinuxOptions", 31, _se_linux(_SELINUX_31), True),
    ("baseline", "seccompProfile", 0, _seccomp, False),
    ("baseline", "forbidden sysctls", 0, _sysctls(_SAFE_SYSCTLS), True),
    ("baseline", "forbidden sysctls", 27, _sysctls(_SAFE_27), True),
    ("baseline", "forbidden sysctls", 29, _sysctls(_SAFE_29), True),
    ("baseline", "forbidden sysctls", 32, _sysctls(_SAFE_32), True),
    ("baseline", "hostProcess", 0, _refuses(
        "securityContext.windowsOptions.hostProcess",
        "{who} must not set securityContext.windowsOptions.hostProcess=true", bool, pod=True), True),
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
