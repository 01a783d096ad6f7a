"""What workloads demand beyond their schema: selectors, strategies, schedules; `old` None for a create."""
import re
import zoneinfo
from collections.abc import Iterator
from typing import Any

from meshtls.lab.api import field
from meshtls.lab.api.field import IMMUTABLE, FieldError, forbidden, invalid, required, unsupported

Object = dict[str, Any]
_RESTARTS = 'valid values: "OnFailure", "Never"'
_ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")
_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
_NAMES = "jan feb mar apr may jun jul aug sep oct nov dec".split(), "sun mon tue wed thu fri sat".split()
_DESCRIPTORS = {"@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"}


def workload(obj: Object, old: Object | None) -> Iterator[FieldError]:
    spec = obj.get("spec") or {}
    selector, labels = spec.get("selector"), ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    if selector is not None and not selector:
        yield invalid("spec.selector", selector, f"empty selector is invalid for {obj['kind'].lower()}")
    matched = ((selector or {}).get("matchLabels") or {}).items() <= (labels or {}).items()
    if selector is None or not matched:
        yield invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
    policy = ((spec.get("template") or {}).get("spec") or {}).get("restartPolicy")
    if policy in ("OnFailure", "Never"):
        yield unsupported("spec.template.spec.restartPolicy", policy, ("Always",))
    if old is not None and old["spec"].get("selector") != selector:
        yield invalid("spec.selector", selector, IMMUTABLE)
    if old is not None and obj["kind"] == "StatefulSet":
        free = ("replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit",
                "persistentVolumeClaimRetentionPolicy",
                "minReadySeconds")
        if {key: item for key, item in spec.items() if key not in free} != {
                key: item for key, item in old["spec"].items() if key not in free}:
            yield forbidden("spec",
                            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', "
                            "'updateStrategy', "
                                    "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and "
                                    "'minReadySeconds' are forbidden")
    if "activeDeadlineSeconds" in ((spec.get("template") or {}).get("spec") or {}):
        yield forbidden("spec.template.spec.activeDeadlineSeconds",
                        f"activeDeadlineSeconds in {'ReplicaSet' if obj['kind'] == 'Deployment' else obj['kind']} "
                        "is not Supported")
    deadline = spec.get("progressDeadlineSeconds")
    if deadline is not None and deadline <= spec.get("minReadySeconds", 0):
        yield invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds")
    rolling = (spec.get("strategy") or {}).get("rollingUpdate") or {}
    for key in ("maxUnavailable", "maxSurge"):
        yield from field.share(f"spec.strategy.rollingUpdate.{key}", rolling.get(key))
    if rolling and all(rolling.get(key) in (0, "0%") for key in ("maxUnavailable", "maxSurge")):
        yield invalid("spec.strategy.rollingUpdate.maxUnavailable", rolling["maxUnavailable"],
                      "may not be 0 when `maxSurge` is 0")
    strategy = spec.get("strategy") or {}
    if strategy.get("type") == "Recreate" and "rollingUpdate" in strategy:
        yield forbidden("spec.strategy.rollingUpdate", "may not be specified when strategy `type` is 'Recreate'")


def daemonset(obj: Object, old: Object | None) -> Iterator[FieldError]:
    rolling = ((obj.get("spec") or {}).get("updateStrategy") or {}).get("rollingUpdate") or {}
    down, up = rolling.get("maxUnavailable", 1), rolling.get("maxSurge", 0)
    at = "spec.updateStrategy.rollingUpdate"
    for key, value in (("maxUnavailable", down), ("maxSurge", up)):
        yield from field.share(f"{at}.{key}", value)
    if rolling and down in (0, "0%") and up in (0, "0%"):
        yield required(f"{at}.maxUnavailable", "cannot be 0 when maxSurge is 0")
    if down not in (0, "0%") and up not in (0, "0%"):
        yield invalid(f"{at}.maxSurge", up, "may not be set when maxUnavailable is non-zero")


def job(obj: Object, old: Object | None) -> Iterator[FieldError]:
    spec = obj.get("spec") or {}
    template = (spec.get("template") or {}).get("spec") or {}
    if template.get("restartPolicy") not in ("OnFailure", "Never"):
        yield required("spec.template.spec.restartPolicy", _RESTARTS)
    if spec.get("completionMode") == "Indexed" and spec.get("completions") is None:
        yield required("spec.completions", "when completion mode is Indexed")
    if spec.get("successPolicy") and spec.get("completionMode") != "Indexed":
        yield invalid("spec.successPolicy", spec["successPolicy"], "requires indexed completion mode")
    if (most := spec.get("maxFailedIndexes")) is not None and most > (spec.get("completions") or 0):
        yield invalid("spec.maxFailedIndexes", most, "must be less than or equal to completions")
    if spec.get("managedBy") and "/" not in spec["managedBy"]:
        yield invalid("spec.managedBy", spec["managedBy"],
                      'must be a domain-prefixed path (such as "acme.io/foo")')
    for place, rule in enumerate((spec.get("podFailurePolicy") or {}).get("rules") or ()):
        if rule.get("action") not in _ACTIONS:
            yield unsupported(f"spec.podFailurePolicy.rules[{place}].action", rule.get("action"), _ACTIONS)
    yield from _selector(spec, obj["metadata"].get("uid", ""))
    if old is not None:
        for name in ("completions", "selector", "template", "completionMode"):
            before, after = old["spec"].get(name), spec.get(name)
            if before != after and not (name == "completions" and spec.get("completionMode") == "Indexed"):
                yield invalid(f"spec.{name}", after, IMMUTABLE)


def _selector(spec: Object, uid: str) -> Iterator[FieldError]:
    selector = spec.get("selector")
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    wanted = (selector or {}).get("matchLabels") or {}
    if not selector:
        yield required("spec.selector")
    elif not spec.get("manualSelector") and uid and wanted != {"batch.kubernetes.io/controller-uid": uid} and not (
            set(wanted) == {"controller-uid"}):
        yield invalid("spec.selector", selector, "`selector` not auto-generated")
    if not selector or not wanted.items() <= (labels or {}).items():
        yield invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")


def cronjob(obj: Object, old: Object | None) -> Iterator[FieldError]:
    spec = obj.get("spec") or {}
    text = spec.get("schedule") or ""
    if told := _schedule(text) if text else "":
        yield invalid("spec.schedule", text, told)
    zone = spec.get("timeZone")
    if zone == "":
        yield invalid("spec.timeZone", zone, "timeZone must be nil or non-empty string")
    elif zone is not None and zone not in zoneinfo.available_timezones():
        yield invalid("spec.timeZone", zone, f"unknown time zone {zone}")
    if ((spec.get("jobTemplate") or {}).get("spec") or {}).get("manualSelector"):
        yield unsupported("spec.jobTemplate.spec.manualSelector", True, ("nil", "false"))
    template = ((((spec.get("jobTemplate") or {}).get("spec") or {}).get("template") or {}).get("spec")) or {}
    if template.get("restartPolicy") not in ("OnFailure", "Never"):
        yield required("spec.jobTemplate.spec.template.spec.restartPolicy", _RESTARTS)
    if len(obj["metadata"].get("name") or "") > 52:
        yield invalid("metadata.name", obj["metadata"]["name"], "must be no more than 52 characters")


def _schedule(text: str) -> str:
    """"" or what is wrong with a schedule."""
    if "TZ" in text:
        return "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
    if text.startswith("@"):
        every = text.startswith("@every ") and re.fullmatch(r"([0-9.]+(ns|us|ms|s|m|h))+", text[7:])
        return "" if every or text in _DESCRIPTORS else f"unrecognized descriptor: {text}"
    parts = text.split()
    if len(parts) != 5:
        return f"expected exactly 5 fields, found {len(parts)}: [{' '.join(parts)}]"
    told = (_part(item, *bounds, place) for place, (part, bounds) in enumerate(zip(parts, _RANGES, strict=True))
            for item in part.split(","))
    return next((text for text in told if text), "")


def _part(item: str, least: int, most: int, place: int) -> str:
    span, _, step = item.partition("/")
    if step and not (step.isdigit() and int(step)):
        return f"step of range should be a positive number: {item}" if step.isdigit() else (
            f"failed to parse int from {step}: strconv.Atoi: parsing \"{step}\": invalid syntax")
    if span in ("*", "?"):
        return ""
    names = _NAMES[place - 3] if place >= 3 else []
    ends = [least + names.index(end.lower()) if end.lower() in names else end for end in span.split("-")]
    for end in ends:
        if not str(end).isdigit():
            return f"failed to parse int from {end}: strconv.Atoi: parsing \"{end}\": invalid syntax"
    first, last = int(ends[0]), int(ends[-1])
    if first < least:
        return f"beginning of range ({first}) below minimum ({least}): {item}"
    if last > most:
        return f"end of range ({last}) above maximum ({most}): {item}"
    return f"beginning of range ({first}) beyond end of range ({last}): {item}" if first > last else ""
