"""What a command leaves behind: one document on standard output, report files, and an exit code.

Laws. Data goes to standard output, everything else to standard error. The exit code depends on what was found, never
on the format. A report file is written whole or not at all. A report exists however the command ends:

    with session(options, kind="AuditReport", title="Audit") as draft:
        draft.checks += ...

The first Ctrl-C (or SIGTERM, or a terminal that hangs up) ends the body, whose own `finally` may clean up for GRACE_S seconds, writes the reports
and exits with 130; the second ends the process at once and prints `draft.cleanup_command`. `--timeout` ends the body
in the same way, with 124, and a body that will not end is ended.
"""

import contextlib
import datetime
import os
import signal
import sys
import tempfile
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import click
import msgspec

from meshtls.cli.accepting import Accepting
from meshtls.cli.options import Options
from meshtls.errors import DeadlineError, InputError, MeshtlsError
from meshtls.model.check import ABOUT_LISTS, Check, Matrix, Report, Severity, Status
from meshtls.report import FORMATS
from meshtls.report.text import in_json, safe

OK, FINDINGS, USAGE, NOT_EVALUATED, GATE, TIMEOUT, INTERRUPTED = 0, 1, 2, 3, 4, 124, 130
GRACE_S = 20.0


class Draft:
    """A report being filled. Whatever is in it when the command ends is written."""

    def __init__(self, kind: str, title: str) -> None:
        self.kind = kind
        self.title = title
        self.checks: list[Check] = []
        self.matrices: list[Matrix] = []
        self.facts: list[tuple[str, str]] = []
        self.coverage: dict[str, int] | None = None
        self.cleanup_command = ""
        self.accepting: Accepting | None = None
        self.code: int | None = None
        self.started = now()

    def report(self, interrupted: bool = False) -> Report:
        """The report as it stands."""
        return Report(kind=self.kind, title=self.title, checks=tuple(self.checks), matrices=tuple(self.matrices),
                      facts=tuple(self.facts), started=self.started, finished=now(), interrupted=interrupted,
                      coverage=self.coverage)


def now() -> str:
    """The time in UTC, RFC 3339, to the second."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def exit_code(report: Report, fail_on: Severity | None) -> int:
    """130 interrupted; 1 a failed check whose findings reach `fail_on`; 3 something could not be asked; else 0.

    A check that failed without a finding counts as severity error. Checks that were all skipped answered nothing: 3.
    """
    if report.interrupted:
        return INTERRUPTED
    if fail_on and any(
        min((f.severity.rank for f in check.findings if not f.accepted), default=Severity.ERROR.rank) <= fail_on.rank
        for check in report.checks
        if check.status is Status.FAIL
    ):
        return FINDINGS
    if any(check.status is Status.ERROR for check in report.checks):
        return NOT_EVALUATED
    asked = [check for check in report.checks if check.id not in ABOUT_LISTS]
    if asked and all(check.status is Status.SKIP for check in asked):
        return NOT_EVALUATED
    return OK


@contextlib.contextmanager
def session(options: Options, *, kind: str, title: str) -> Iterator[Draft]:
    """Run a command's body with a deadline and interrupts, then write its report and leave with its exit code.

    An error of ours becomes a check with status ERROR, so that every format carries it. Raises click's Exit.
    """
    draft = Draft(kind, title)
    failure: BaseException | None = None
    with stops(options.timeout_s, draft):
        try:
            draft.accepting = Accepting(options, kind)
            yield draft
        except click.exceptions.Exit as done:
            draft.code = done.exit_code
        except (MeshtlsError, KeyboardInterrupt, Exception) as error:
            failure = error
            draft.checks.append(_failed(error))
    if draft.accepting:
        draft.accepting.mark(draft, whole=failure is None)
    report = draft.report(interrupted=isinstance(failure, KeyboardInterrupt))
    told = failure is not None and len(report.checks) == 1 and not report.matrices
    emit(report, options, show_table=not told)
    if failure is not None and not isinstance(failure, (MeshtlsError, KeyboardInterrupt)):
        raise failure
    code = failure.exit_code if isinstance(failure, MeshtlsError) else exit_code(report, options.fail_on)
    raise click.exceptions.Exit(draft.code if draft.code is not None and failure is None else code)


def _failed(error: BaseException) -> Check:
    """The check that tells why a command ended early."""
    if isinstance(error, KeyboardInterrupt):
        text = "interrupted"
    elif isinstance(error, MeshtlsError):
        text = str(error)
    else:
        text = f"a fault in meshtls: {type(error).__name__}: {error}"
    say(f"meshtls: {text}")
    return Check(id="run", title="the command ran to its end", status=Status.ERROR, reason=text)


@contextlib.contextmanager
def stops(timeout_s: float | None, draft: Draft | None = None) -> Iterator[None]:
    """Within: SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt once and end the process the second time; the deadline
    raises DeadlineError. Either way the process ends GRACE_S seconds later at the latest. nohup is honoured."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []

    def die(code: int) -> None:
        if draft and draft.cleanup_command:
            with contextlib.suppress(OSError):
                os.write(2, f"meshtls: left undone; run: {draft.cleanup_command}\n".encode())
        os._exit(code)

    def interrupt(number: int, frame: types.FrameType | None) -> None:
        if asked:
            die(INTERRUPTED)
        asked.append(INTERRUPTED)
        signal.setitimer(signal.ITIMER_REAL, GRACE_S)
        raise KeyboardInterrupt

    def alarm(number: int, frame: types.FrameType | None) -> None:
        if asked:
            die(asked[0])
        asked.append(TIMEOUT)
        signal.setitimer(signal.ITIMER_REAL, GRACE_S)
        raise DeadlineError(f"not done within {timeout_s:g} s", "give it more time with --timeout")

    handlers = {signal.SIGINT: interrupt, signal.SIGTERM: interrupt, signal.SIGALRM: alarm}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        handlers[signal.SIGHUP] = interrupt
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    signal.setitimer(signal.ITIMER_REAL, timeout_s or 0.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        for number, handler in before.items():
            signal.signal(number, handler)


def emit(report: Report, options: Options, *, show_table: bool = True) -> None:
    """The report on standard output in the format asked for, and in every file asked for.

    `show_table` False leaves the text for people out: where all that it would say stands on standard error already.
    """
    for form, path in options.reports:
        write(path, FORMATS[form](report))
    if options.output == "json":
        echo(FORMATS["json"](report))
    elif options.output == "yaml":
        echo(_yaml(msgspec.json.decode(FORMATS["json"](report))))
    elif show_table:
        from meshtls.report import console

        show = Severity.INFO if options.output == "wide" else options.show
        echo(console.render(report, msgspec.structs.replace(terminal_style(options.color), show=show)))


def emit_document(document: Any, options: Options, table: Callable[[], str]) -> None:
    """A document that is no report (a struct, or plain data) on standard output; `table` makes its text for people."""
    if options.output in ("json", "yaml"):
        raw = msgspec.json.encode(document)
        echo(in_json(msgspec.json.format(raw, indent=2).decode()) + "\n" if options.output == "json" else _yaml(msgspec.json.decode(raw)))
    else:
        echo(safe(table()))


def terminal_style(color: str = "auto") -> Any:
    """The console style that standard output can show: NO_COLOR, TERM=dumb, pipes and encodings are honoured, `color` counts more."""
    from meshtls.report.console import Style

    width = terminal_width()
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM", "") in ("dumb", "")
    encoding = (getattr(sys.stdout, "encoding", "") or "ascii").lower().replace("-", "")
    return Style(width=width or 80, colour=color == "always" or (color == "auto" and bool(width) and not plain), unicode=encoding == "utf8")


def terminal_width() -> int:
    """Columns of the terminal that standard output is; 0 where it is none."""
    if not sys.stdout.isatty():
        return 0
    try:
        return max(40, os.get_terminal_size(sys.stdout.fileno()).columns or 80)
    except (OSError, ValueError):
        return 80


def say(text: str) -> None:
    """`text` on standard error, with what would act on a terminal instead of showing escaped: names and log lines are others'."""
    click.echo(safe(text), err=True)


def echo(text: str) -> None:
    """`text` on standard output, with escapes for what its encoding cannot carry."""
    encoding = getattr(sys.stdout, "encoding", "") or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()


def write(path: str, text: str) -> None:
    """Replace the file at `path` as a whole: another file beside it is filled and renamed. Raises InputError."""
    folder = os.path.dirname(path) or "."
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=".meshtls-", dir=folder)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
            os.chmod(temporary, 0o644 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}", "name a file in a folder you can write") from error


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _yaml(data: Any) -> str:
    import yaml

    return yaml.dump(data, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False, allow_unicode=True)
