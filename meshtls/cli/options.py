"""The options that verbs share, and the one frozen value that they become.

A verb names the groups it needs; argv and environment are read here and nowhere below:

    @click.command()
    @shared("cluster", "scope", "output", "report", "timeout", "threshold")
    def audit(options: Options) -> None: ...

Every verb takes the same spelling of the same thing, so the groups are the whole contract:

    cluster     --kubeconfig --context --as --as-group
    place       -n/--namespace (repeatable, commas allowed) -A/--all-namespaces
    scope       the same, and -l/--selector: for verbs whose answer is about workloads
    output      -o/--output table|wide|json|yaml, --color auto|always|never
    report      --report FMT=FILE[,FMT=FILE...]
    timeout     --timeout 30s|5m|1h30m
    threshold   --fail-on SEVERITY|never, --show SEVERITY
    accept      --baseline FILE, --fail-on-new, --suppress FILE
    prometheus  --prometheus URL, and --prometheus-... for who asks and whom to trust
Each of them but -A and -l may come from the environment, as MESHTLS_ and its name: MESHTLS_FAIL_ON is --fail-on. A flag counts more.
"""

import functools
import os
import re
import shlex
from collections.abc import Callable
from typing import Any

import click
import msgspec
from click.core import ParameterSource

from meshtls.model.check import Severity
from meshtls.report import FORMATS

PREFIX = "MESHTLS_"
# what begins like an option and is none: the lab's
_NO_OPTIONS = ("MESHTLS_ENVOY", "MESHTLS_LAB")
OUTPUTS = ("table", "wide", "json", "yaml")
NEVER = "never"

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asked for, in the terms that all verbs share.

    `namespaces` are in the order given, without repetition; `timeout_s` is None where there is no limit; `fail_on` is
    None for `--fail-on never`; `reports` are pairs of format and file path.
    """

    namespaces: tuple[str, ...] = ()
    all_namespaces: bool = False
    selector: str = ""
    kubeconfig: str | None = None
    context: str | None = None
    as_user: str = ""
    as_groups: tuple[str, ...] = ()
    output: str = "table"
    color: str = "auto"
    reports: tuple[tuple[str, str], ...] = ()
    timeout_s: float | None = None
    fail_on: Severity | None = Severity.ERROR
    show: Severity = Severity.WARNING
    baseline: str | None = None
    fail_on_new: bool = False
    suppress: tuple[str, ...] = ()
    prometheus: str = ""
    prometheus_token_file: str = ""
    prometheus_user: str = ""
    prometheus_password_file: str = ""
    prometheus_ca: str = ""


def same_cluster(options: Options) -> str:
    """The flags that lead a command to the same cluster again, each with a space before it."""
    given = (("--kubeconfig", options.kubeconfig), ("--context", options.context), ("--as", options.as_user), *(("--as-group", g) for g in options.as_groups))
    return "".join(f" {flag} {shlex.quote(value)}" for flag, value in given if value)


def environment() -> dict[str, str]:
    """The environment for a command that we run ourselves: no option comes from it, for where it goes and what it does is ours to say."""
    return {key: value for key, value in os.environ.items() if not key.startswith(PREFIX) or key in _NO_OPTIONS}


def duration(text: str) -> float:
    """Seconds in a duration that carries its units, such as `30s`, `1h30m` or `500ms`. Raises ValueError."""
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is no duration: write a number with a unit, such as 30s, 5m or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


class Duration(click.ParamType):  # type: ignore[type-arg]
    """A command line's duration; its value is in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, (int, float)):
            return float(value)
        try:
            return duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _names(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """The namespaces given, one each: `-n a,b -n b` is a and b."""
    names = [name.strip() for value in values for name in value.split(",")]
    for name in names:
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name):
            raise click.BadParameter(f"{name!r} is no name of a namespace")
    return tuple(dict.fromkeys(names))


def _reports(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Pairs of format and file. Two reports into one file would overwrite each other, so they are refused."""
    pairs: list[tuple[str, str]] = []
    for part in (part for value in values for part in value.split(",")):
        form, equals, path = part.partition("=")
        if not equals or not path or form not in FORMATS:
            raise click.BadParameter(f"{part!r}: write FORMAT=FILE with a format of {', '.join(FORMATS)}")
        if path in (path_ for _, path_ in pairs):
            raise click.BadParameter(f"{path!r} is named twice")
        pairs.append((form, path))
    return tuple(pairs)


def _severity(ctx: click.Context, param: click.Parameter, value: str) -> Severity | None:
    return None if value == NEVER else Severity(value)


def _contexts(ctx: click.Context, param: click.Parameter, incomplete: str) -> Any:
    from meshtls.cli import completion

    return completion.contexts(ctx, param, incomplete)


def _namespaces(ctx: click.Context, param: click.Parameter, incomplete: str) -> Any:
    from meshtls.cli import completion

    return completion.namespaces(ctx, param, incomplete)


_LEVELS = [str(level) for level in Severity]

_PLACE = (
    click.option("-n", "--namespace", "namespaces", multiple=True, callback=_names, metavar="NS",
                 shell_complete=_namespaces, help="Namespace; repeat it or use commas for several."),
    click.option("-A", "--all-namespaces", is_flag=True, help="All namespaces."),
)  # fmt: skip

# group -> the options it adds; their names are the fields of Options
_GROUPS: dict[str, tuple[Callable[[Any], Any], ...]] = {
    "cluster": (
        click.option("--kubeconfig", metavar="FILE", help="Kubeconfig to use; else $KUBECONFIG, else ~/.kube/config."),
        click.option("--context", metavar="NAME", help="Context of the kubeconfig; else its current one.", shell_complete=_contexts),
        click.option("--as", "as_user", default="", metavar="USER", help="Ask as this user, whom you may impersonate."),
        click.option("--as-group", "as_groups", multiple=True, metavar="GROUP", help="With --as: and as a member of this group; repeat it for several."),
    ),
    "place": _PLACE,
    "scope": (
        *_PLACE,
        click.option("-l", "--selector", default="", metavar="LABELS", help="Only workloads with these labels."),
    ),
    "output": (
        click.option("-o", "--output", type=click.Choice(OUTPUTS), default="table", show_default=True,
                     help="What is printed on standard output."),
        click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", help="Colour; auto: on a terminal, if NO_COLOR is not set."),
    ),
    "report": (
        click.option("--report", "reports", multiple=True, callback=_reports, metavar="FMT=FILE,...",
                     help=f"Also write reports; FMT is one of {', '.join(FORMATS)}."),
    ),
    "timeout": (
        click.option("--timeout", "timeout_s", type=Duration(), metavar="DURATION",
                     help="Stop after this time (30s, 5m) with exit code 124."),
    ),
    "threshold": (
        click.option("--fail-on", type=click.Choice([*_LEVELS, NEVER]), default="error", callback=_severity,
                     show_default=True, help="Exit with 1 if a finding is this bad or worse."),
        click.option("--show", type=click.Choice(_LEVELS), default="warning", callback=_severity,
                     show_default=True, help="Print findings that are this bad or worse."),
    ),
    "accept": (
        click.option("--baseline", metavar="FILE", help="An earlier report of the same verb (-o json) to compare with."),
        click.option("--fail-on-new", is_flag=True, help="Findings of the baseline are accepted; only new ones fail."),
        click.option("--suppress", "suppress", multiple=True, metavar="FILE", help="Accepted findings, with owner, reason and expiry."),
    ),
    "prometheus": (
        click.option("--prometheus", default="", metavar="URL", help="Ask this Prometheus too, which scrapes the proxies."),
        click.option("--prometheus-token-file", default="", metavar="FILE", help="A file with the bearer token that it wants."),
        click.option("--prometheus-user", default="", metavar="NAME", help="The user that it wants."),
        click.option("--prometheus-password-file", default="", metavar="FILE", help="A file with that user's password."),
        click.option("--prometheus-ca", default="", metavar="FILE", help="A file with the CA of its certificate."),
    ),
}


# what only makes sense for one call
_TYPED = frozenset({"all_namespaces", "selector"})


def shared(*groups: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a click command with the options of `groups`; it gets them as one argument, `options: Options`."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        fields = set(Options.__struct_fields__)

        @functools.wraps(function)
        def command(**arguments: Any) -> Any:
            context = click.get_current_context()
            given = {name: arguments.pop(name) for name in fields & arguments.keys()}
            if given.get("all_namespaces") and context.get_parameter_source("namespaces") is ParameterSource.ENVIRONMENT:
                given["namespaces"] = ()
            options = Options(**given)
            if options.all_namespaces and options.namespaces:
                raise click.UsageError("-n and -A exclude each other")
            if options.as_groups and not options.as_user:
                raise click.UsageError("--as-group needs --as USER")
            if options.fail_on_new and not options.baseline:
                raise click.UsageError("--fail-on-new needs --baseline FILE")
            if options.color != "auto":
                context.color = options.color == "always"
            return function(options=options, **arguments)

        for option in reversed([option for group in groups for option in _GROUPS[group]]):
            command = option(command)
        for param in command.__click_params__:  # type: ignore[attr-defined]
            if param.name in fields - _TYPED:
                long = next(name for name in param.opts if name.startswith("--"))
                param.envvar = PREFIX + long[2:].upper().replace("-", "_")
        return command

    return decorate
