"""What workloads demand beyond their schema: selectors, strategies, schedules, as rules on their structures."""
import re
import zoneinfo
from collections.abc import Iterator

from meshtls.lab.api import field
from meshtls.lab.api.field import FieldError, invalid
from meshtls.lab.api.parts import Part, Rule, bad, each, fixed, needs, never

_STRATEGIES: dict[str, tuple[str, ...]] = {"V1DeploymentStrategy": ("Recreate", "RollingUpdate"),
                                           "V1DaemonSetUpdateStrategy": ("RollingUpdate", "OnDelete"),
                                           "V1StatefulSetUpdateStrategy": ("RollingUpdate", "OnDelete")}
_ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")
_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
_NAMES = "jan feb mar apr may jun jul aug sep oct nov dec".split(), "sun mon tue wed thu fri sat".split()
_DESCRIPTORS = {"@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"}
_FREE = ("replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit",
         "persistentVolumeClaimRetentionPolicy", "minReadySeconds")
"""What of a StatefulSet an update may change."""

_JOB_LABEL = "batch.kubernetes.io/controller-uid"
_NONE = (None, 0, "0%")


def _unmatched(part: Part) -> bool:
    wanted, labels = part["selector.matchLabels"] or {}, part["template.metadata.labels"] or {}
    return part["selector"] is None or not wanted.items() <= labels.items()


def _strategy(part: Part) -> Iterator[FieldError]:
    """Told of the whole strategy, as the API server's structure has it."""
    known, rolling = _STRATEGIES[part.model], part["rollingUpdate"]
    if part["type"] in known:
        if part.model == "V1StatefulSetUpdateStrategy" and part["type"] == "OnDelete" and rolling is not None:
            yield invalid(part.at("rollingUpdate"), {"Partition": rolling.get("partition", 0), "MaxUnavailable": rolling.get("maxUnavailable")},
                          "only allowed for updateStrategy 'RollingUpdate'")
    elif part.model == "V1StatefulSetUpdateStrategy":
        yield invalid(part.path, {"Type": part["type"], "RollingUpdate": rolling}, "must be 'RollingUpdate' or 'OnDelete'")
    else:
        yield field.unsupported(part.path, {"Type": part["type"], "RollingUpdate": rolling}, known)


def _workload(part: Part) -> Iterator[FieldError]:
    kind = part.model.removeprefix("V1").removesuffix("Spec")
    if part["selector"] == {}:
        yield invalid("spec.selector", {}, f"empty selector is invalid for {kind.lower()}")
    if part["template.spec.activeDeadlineSeconds"] is not None:
        yield field.forbidden("spec.template.spec.activeDeadlineSeconds", "activeDeadlineSeconds in "
                              f"{'ReplicaSet' if kind == 'Deployment' else kind} is not Supported")


def _changed(part: Part) -> bool:
    before, after = ({key: item for key, item in (one or {}).items() if key not in _FREE}
                     for one in (part.old, part.value))
    return part.old is not None and before != after


def _not_made(part: Part) -> bool:
    """Is a Job's selector another than the server gives it?"""
    uid = part.above["metadata.uid"] if part.above else None
    wanted = part["selector.matchLabels"] or {}
    return bool(part["selector"] and not part["manualSelector"] and uid and wanted != {_JOB_LABEL: uid}
                and set(wanted) != {"controller-uid"})


def _job(part: Part) -> Iterator[FieldError]:
    for rule in JOB if part.above and part.above.model == "V1Job" else ():
        yield from rule(part)


def _fixed_completions(part: Part) -> Iterator[FieldError]:
    yield from fixed(*(() if part["completionMode"] == "Indexed" else ("completions",)))(part)


def _action(part: Part) -> Iterator[FieldError]:
    if part["action"] not in _ACTIONS:
        yield field.unsupported(part.at("action"), part["action"], _ACTIONS)
    if part["onExitCodes"] is None and not part["onPodConditions"]:
        yield invalid(part.path, field.OMITTED, "specifying one of OnExitCodes and OnPodConditions is required")


def _cronjob(part: Part) -> Iterator[FieldError]:
    yield from each("schedule", lambda text: [told] if (told := _schedule(text)) else [])(part)
    zone = part["timeZone"]
    if zone and zone.lower() == "local":
        yield invalid("spec.timeZone", zone, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones")
    elif zone and zone not in zoneinfo.available_timezones():
        yield invalid("spec.timeZone", zone, f"unknown time zone {zone}")
    if part["jobTemplate.spec.manualSelector"]:
        yield field.unsupported("spec.jobTemplate.spec.manualSelector", True, ("nil", "false"))
    name = part.above["metadata.name"] if part.above else ""
    if len(name or "") > 52:
        yield invalid("metadata.name", name, "must be no more than 52 characters")


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


def _for_indexed(key: str) -> Rule:
    return bad(key, "requires indexed completion mode", lambda job: job[key] is not None and job["completionMode"] != "Indexed")


_MISMATCH = "`selector` does not match template `labels`"
WORKLOAD: tuple[Rule, ...] = (bad("template.metadata.labels", _MISMATCH, _unmatched), fixed("selector"), _workload)
JOB: tuple[Rule, ...] = (
    needs("completions", "when completion mode is Indexed",
          lambda job: job["completionMode"] == "Indexed" and job["completions"] is None),
    _for_indexed("backoffLimitPerIndex"), _for_indexed("maxFailedIndexes"),
    needs("backoffLimitPerIndex", "when maxFailedIndexes is specified",
          lambda job: job["maxFailedIndexes"] is not None and job["backoffLimitPerIndex"] is None),
    _for_indexed("successPolicy"),
    bad("maxFailedIndexes", "must be less than or equal to completions",
        lambda job: job["completionMode"] == "Indexed" and (job["maxFailedIndexes"] or 0) > (job["completions"] or 0)),
    bad("managedBy", 'must be a domain-prefixed path (such as "acme.io/foo")',
        lambda job: job["managedBy"] and "/" not in job["managedBy"]),
    needs("selector"), bad("selector", "`selector` not auto-generated", _not_made),
    bad("template.metadata.labels", _MISMATCH, lambda job: not job["selector"] or _unmatched(job)),
    _fixed_completions, fixed("selector", "template", "completionMode"))

RULES: dict[str, tuple[Rule, ...]] = {
    "V1DeploymentSpec": (
        *WORKLOAD,
        bad("progressDeadlineSeconds", "must be greater than minReadySeconds", lambda one: (
            one["progressDeadlineSeconds"] is not None
            and one["progressDeadlineSeconds"] <= (one["minReadySeconds"] or 0)))),
    "V1ReplicaSetSpec": WORKLOAD, "V1DaemonSetSpec": WORKLOAD,
    **dict.fromkeys(("V1DaemonSetUpdateStrategy", "V1StatefulSetUpdateStrategy"), (_strategy,)),
    "V1StatefulSetSpec": (*WORKLOAD, bad("podManagementPolicy", "must be 'OrderedReady' or 'Parallel'", lambda one: (
        one["podManagementPolicy"] not in ("OrderedReady", "Parallel"))), never(
        "", "updates to statefulset spec for fields other than "
        f"{', '.join(map(repr, _FREE[:-1]))} and {_FREE[-1]!r} are forbidden", _changed)),
    "V1DeploymentStrategy": (
        _strategy, never("rollingUpdate", "may not be specified when strategy `type` is 'Recreate'",
              lambda one: one["type"] == "Recreate" and one["rollingUpdate"] is not None),),
    "V1RollingUpdateDeployment": (
        each("maxUnavailable", field.share), each("maxSurge", field.share),
        bad("maxUnavailable", "may not be 0 when `maxSurge` is 0",
            lambda one: one["maxUnavailable"] in (0, "0%") and one["maxSurge"] in (0, "0%"))),
    "V1RollingUpdateDaemonSet": (
        each("maxUnavailable", field.share), each("maxSurge", field.share),
        needs("maxUnavailable", "cannot be 0 when maxSurge is 0",
              lambda one: one["maxUnavailable"] in (0, "0%") and one["maxSurge"] in _NONE),
        bad("maxSurge", "may not be set when maxUnavailable is non-zero",
            lambda one: one["maxUnavailable"] not in (0, "0%") and one["maxSurge"] not in _NONE)),
    "V1JobSpec": (_job,), "V1PodFailurePolicyRule": (_action,),
    "V1CronJobSpec": (
        bad("timeZone", "timeZone must be nil or non-empty string", lambda one: one["timeZone"] == ""), _cronjob)}
