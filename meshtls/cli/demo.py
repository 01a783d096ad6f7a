"""`meshtls lab demo`: the whole story on a mesh of this machine, told by the commands that a user would type.

Each step runs one command as a process of its own, lets it print what it prints, and checks its exit code against what the
story says: the demo fails where the tool does not do what it promises. What the steps report ends in one HTML page.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

import click
import msgspec

from meshtls.cli.main import CLOSED_PIPE
from meshtls.cli.options import environment
from meshtls.errors import InputError, LabError, MeshtlsError
from meshtls.model.check import Check, Report, Status

SOAK = "3s"


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One command of the story: what is typed, why, the exit code that it must have, and words that its output must hold."""

    title: str
    args: tuple[str, ...]
    exit_code: int
    names: tuple[str, ...] = ()


STORY = (
    Step(title="What would break under STRICT? The audit names the troubles that were put into the shop.",
         args=("audit", "-A", "--fail-on", "error"), exit_code=1),
    Step(title="Everything is PERMISSIVE. What is predicted, and what do probes see on the wire?",
         args=("probe", "-n", "shop,payments"), exit_code=0),
    Step(title="Namespace shop goes STRICT: first one workload, then the namespace, a gate after each.",
         args=("migrate", "apply", "-n", "shop", "--yes", "--soak", SOAK), exit_code=0),
    Step(title="Namespace payments is held: a client without sidecar still sends plaintext.",
         args=("migrate", "apply", "-n", "payments", "--yes", "--soak", SOAK), exit_code=4, names=("billing",)),
    Step(title="Told to go on all the same: the canary refuses that client, and the step takes itself back.",
         args=("migrate", "apply", "-n", "payments", "--yes", "--soak", SOAK, "--force"), exit_code=4, names=("billing",)),
    Step(title="What holds now, on the wire.", args=("probe", "-n", "shop,payments"), exit_code=0),
)


class Story:
    """The demo while it runs: the lab's name, and what went other than told. Reports go beside the lab's files, and with them."""

    def __init__(self, name: str, mode: str) -> None:
        self.name, self.mode = name, mode
        self.started = time.monotonic()
        self.reports: list[Report] = []
        self.checks: list[Check] = []
        self.environment = environment()
        self.failures: list[str] = []

    def say(self, text: str) -> None:
        _print(f"\n[{time.monotonic() - self.started:5.1f} s] {text}", bold=True)

    def check(self, title: str, ok: bool, reason: str = "") -> None:
        number = len(self.checks) + 1
        status = Status.PASS if ok else Status.FAIL
        self.checks.append(Check(id=f"demo-{number}", title=title, status=status, reason=reason, group="demo"))
        if not ok:
            _print(f"not as told: {title}: {reason}", fg="red", err=True)

    def command(self, *args: str, report: pathlib.Path | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run it as typed; `report` is where a copy of its report goes besides. Raises BrokenPipeError when nobody reads on."""
        _print("$ meshtls " + " ".join(args), dim=True)
        more = () if report is None else ("--report", f"json={report}")
        done = subprocess.run([sys.executable, "-m", "meshtls.cli.main", *args, *more], env=self.environment, check=False)
        if done.returncode == CLOSED_PIPE:
            raise BrokenPipeError
        return done

    def step(self, step: Step) -> None:
        from meshtls.lab import state
        from meshtls.report.json import parse

        self.say(step.title)
        path = state.directory(self.name) / f"report-{len(self.reports)}.json"
        done = self.command(*step.args, report=path)
        self.check(step.title, done.returncode == step.exit_code, f"exit code {done.returncode}, told {step.exit_code}")
        if not path.exists():
            self.check(f"{step.args[0]} leaves a report", False, "no report was written")
            return
        text = path.read_text()
        self.reports.append(parse(text))
        for name in step.names:
            self.check(f"{' '.join(step.args[:4])} names {name}", name in text, "the name is not in its report")

    def visitor(self) -> tuple[int, int] | None:
        """(answered, failed) requests of the steady loop so far, from its own log; None before its first line."""
        from meshtls.cluster.client import Client

        with Client.connect(kubeconfig=self.environment["KUBECONFIG"]) as client:
            pod = client.list("Pod", "shop", labels="app=visitor")[0]["metadata"]["name"]
            lines = list(client.logs("shop", pod, "app"))
        self.failures = [line for line in lines if '"error"' in line]
        for line in reversed(lines):
            if '"ok"' in line:
                counts = json.loads(line[line.index("{"):])
                return counts["ok"], counts["failed"]
        return None

    def page(self) -> Report:
        """All reports as one: checks grouped by the command that asked them."""
        own = Report(kind="DemoReport", title="The demo's own checks", checks=tuple(self.checks))
        parts = [*self.reports, own]
        return Report(
            kind="DemoReport", title="A mesh goes STRICT, and comes back",
            checks=tuple(c for report in parts for c in report.checks),
            matrices=tuple(m for report in parts for m in report.matrices),
            facts=tuple(f for report in parts for f in report.facts),
            started=self.reports[0].started if self.reports else "", finished=self.reports[-1].finished if self.reports else "",
        )


def _print(text: str, err: bool = False, **style: Any) -> None:
    """A terminal that is gone must not keep the lab up."""
    with contextlib.suppress(OSError):
        click.secho(text, err=err, **style)
        sys.stdout.flush()


def wait_for_visitor(story: Story) -> tuple[int, int]:
    """The first count of the steady loop that has answered requests; raises LabError when none comes in 20 s."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        counts = story.visitor()
        if counts and counts[0]:
            return counts
        time.sleep(0.2)
    raise LabError("the shop's steady load gets no answer", "look at: meshtls lab status; kubectl logs -n shop deploy/visitor")


def tell(story: Story, examples: pathlib.Path) -> None:
    """Lab up, the story, lab down."""
    story.say("A local mesh: real Envoys, no Kubernetes, no root. The shop is applied to it.")
    up = story.command("lab", "up", "--name", story.name, *(("--mode", story.mode) if story.mode != "auto" else ()), "-f", str(examples), "--wait")
    if up.returncode:
        raise LabError("the lab did not come up", "its last lines say why")
    path = subprocess.run([sys.executable, "-m", "meshtls.cli.main", "lab", "kubeconfig", "--name", story.name],
                          check=True, capture_output=True, text=True).stdout.strip()
    story.environment["KUBECONFIG"] = path
    before = wait_for_visitor(story)
    for step in STORY:
        story.step(step)
    after = story.visitor() or before
    answered, failed = after[0] - before[0], after[1] - before[1]
    story.say(f"The steady load through shop, all the time: {answered} requests answered, {failed} failed.")
    story.check("not one request over mTLS failed", answered > 0 and failed == 0, f"{failed} of {answered + failed} failed: {' '.join(story.failures[-3:])}")


def finish(story: Story, output: pathlib.Path) -> int:
    """Lab down, the page written; returns the exit code."""
    from meshtls.cli.output import write
    from meshtls.lab import state
    from meshtls.report import FORMATS

    story.say("Lab down.")
    try:
        state.clear(story.name)
        story.check("nothing of the lab is left", story.name not in state.names(), "its files are")
    except MeshtlsError as error:
        story.check("nothing of the lab is left", False, str(error))
    write(str(output), FORMATS["html"](story.page()))
    bad = [c for c in story.checks if c.status is not Status.PASS]
    story.say(f"{output}: every answer on one page. {len(story.checks) - len(bad)} of {len(story.checks)} steps as told.")
    return 1 if bad else 0


def run(examples: str, output: str, mode: str) -> None:
    """Tell the whole story. Leaves the process with 0 if all came as told, 1 if not, 130 after Ctrl-C."""
    from meshtls.cli.output import Draft, stops

    shop, page = pathlib.Path(examples), pathlib.Path(output).resolve()
    if not any(shop.glob("*.yaml")):
        raise InputError(f"no manifests in {shop}", "run scripts/demo from a clone, or name them with --examples")
    if not os.access(page.parent, os.W_OK):
        raise InputError(f"cannot write {page}", "name a file in a folder you can write with --output")
    draft = Draft("DemoReport", "Demo")
    with stops(None, draft):
        story = Story(f"demo-{os.getpid()}", mode)
        draft.cleanup_command = f"meshtls lab down --name {story.name}"
        interrupted = unread = False
        try:
            tell(story, shop)
        except KeyboardInterrupt:
            interrupted = True
        except BrokenPipeError:
            unread = True
            story.check("the story was told to its end", False, "nobody reads standard output any more")
        except MeshtlsError as error:
            story.check("the story was told to its end", False, str(error))
        while True:
            # an interrupt comes once; the second one ends the process
            try:
                if interrupted:
                    story.check("the story was told to its end", False, "interrupted")
                code = finish(story, page)
                break
            except KeyboardInterrupt:
                interrupted = True
    if unread and not interrupted:
        raise BrokenPipeError
    raise click.exceptions.Exit(130 if interrupted else code)
