"""Exit codes follow what was found; a report exists however a command ends."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from meshtls.cli import output
from meshtls.cli.options import Options
from meshtls.errors import InputError
from meshtls.model.check import Check, Finding, Report, Severity, Status


def _check(status, severity=None, accepted=""):
    found = (Finding(code="MT101", severity=severity, subject="Pod/a/b", message="m", accepted=accepted),) if severity else ()
    return Check(id="MT101", title="t", status=status, reason="r" if status in (Status.SKIP, Status.ERROR) else "", findings=found)


PASS, SKIP, ERROR = (_check(s) for s in (Status.PASS, Status.SKIP, Status.ERROR))
WARNING, BROKEN = _check(Status.FAIL, Severity.WARNING), _check(Status.FAIL, Severity.ERROR)


@pytest.mark.parametrize(("checks", "fail_on", "code"), [
    ((), Severity.ERROR, 0),
    ((PASS,), Severity.ERROR, 0),
    ((PASS, SKIP), Severity.ERROR, 0),
    ((SKIP, SKIP), Severity.ERROR, 3),
    ((SKIP, Check(id="MT900", title="t", status=Status.PASS)), Severity.ERROR, 3),
    ((SKIP, Check(id="exceptions", title="t", status=Status.PASS)), Severity.ERROR, 3),
    ((PASS, ERROR), Severity.ERROR, 3),
    ((WARNING,), Severity.ERROR, 0),
    ((WARNING,), Severity.WARNING, 1),
    ((BROKEN, ERROR), Severity.ERROR, 1),
    ((BROKEN,), None, 0),
    ((BROKEN,), Severity.CRITICAL, 0),
    ((_check(Status.FAIL),), Severity.ERROR, 1),
    ((_check(Status.PASS, Severity.CRITICAL, accepted="owner"),), Severity.INFO, 0),
])
def test_the_exit_code_follows_what_was_found(checks, fail_on, code):
    assert output.exit_code(Report(kind="AuditReport", title="t", checks=checks), fail_on) == code


def test_an_interrupted_report_is_130_whatever_it_holds():
    assert output.exit_code(Report(kind="AuditReport", title="t", checks=(BROKEN,), interrupted=True), Severity.ERROR) == 130


SCRIPT = """
    import sys, time
    import click
    from meshtls.cli import output
    from meshtls.cli.options import shared
    from meshtls.errors import InputError, Unreachable
    from meshtls.model.check import Check, Status

    @click.command()
    @shared("output", "report", "timeout")
    def verb(options):
        with output.session(options, kind="AuditReport", title="Audit") as draft:
            draft.cleanup_command = "meshtls cleanup --run 7"
            draft.checks.append(Check(id="first", title="first", status=Status.PASS))
            try:
                {body}
            finally:
                {cleanup}

    verb(standalone_mode=True)
"""


def _start(tmp_path, body, *arguments, cleanup="pass"):
    script = tmp_path / "verb.py"
    script.write_text(textwrap.dedent(SCRIPT).format(body=body, cleanup=cleanup))
    return subprocess.Popen([sys.executable, str(script), "--report", f"json={tmp_path / 'r.json'}", *arguments],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=os.getcwd())


def _report(tmp_path):
    return json.loads((tmp_path / "r.json").read_text())


def test_a_deadline_is_enforced_and_still_leaves_a_report(tmp_path):
    process = _start(tmp_path, "time.sleep(600)", "--timeout", "200ms")
    _, said = process.communicate(timeout=60)

    assert process.returncode == 124 and "0.2 s" in said
    assert [c["id"] for c in _report(tmp_path)["checks"]] == ["first", "run"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_still_leaves_a_report(tmp_path, number):
    process = _start(tmp_path, "print('ready', flush=True); time.sleep(600)", "-o", "json")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    process.communicate(timeout=60)

    assert process.returncode == 130
    assert _report(tmp_path)["interrupted"] is True


def test_a_second_interrupt_ends_the_process_and_says_how_to_clean_up(tmp_path):
    process = _start(tmp_path, "print('ready', flush=True); time.sleep(600)", cleanup="print('cleaning', flush=True); time.sleep(600)")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "cleaning\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)

    assert process.returncode == 130 and "meshtls cleanup --run 7" in said


@pytest.mark.parametrize(("body", "code"), [("raise InputError('bad file')", 2), ("raise Unreachable('no answer')", 3)])
def test_an_error_of_ours_is_one_line_and_a_check_of_the_report(tmp_path, body, code):
    process = _start(tmp_path, body)
    _, said = process.communicate(timeout=60)

    assert process.returncode == code
    assert said.count("\n") == 1 and "Traceback" not in said
    assert _report(tmp_path)["checks"][-1]["status"] == "ERROR"


def test_a_fault_of_meshtls_is_in_the_report_too(tmp_path):
    process = _start(tmp_path, "1 / 0")
    process.communicate(timeout=60)

    assert process.returncode == 1
    assert "ZeroDivisionError" in _report(tmp_path)["checks"][-1]["reason"]


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    path = tmp_path / "r.txt"
    path.write_text("before")
    output.write(str(path), "after")

    assert path.read_text() == "after" and os.listdir(tmp_path) == ["r.txt"]
    with pytest.raises(InputError, match="cannot write"):
        output.write(str(tmp_path / "none" / "r.txt"), "x")


def test_standard_output_gets_escapes_for_what_its_encoding_lacks(monkeypatch, capsysbinary):
    import io

    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    output.emit(Report(kind="AuditReport", title="Prüfung", checks=(PASS,)), Options())
    sys.stdout.flush()

    assert b"Pr\\xfcfung" in raw.getvalue()


@pytest.mark.parametrize("verb", [["modes"], ["audit"], ["audit", "-o", "json"]])
def test_a_reader_that_has_left_is_told_by_a_code_of_its_own(verb):
    reader, writer = os.pipe()
    os.close(reader)
    shop = str(Path(__file__).parents[2] / "examples/shop")
    done = subprocess.run([sys.executable, "-m", "meshtls.cli.main", *verb, shop], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(writer)

    assert done.returncode == 141
    assert "Traceback" not in done.stderr and "fault in meshtls" not in done.stderr


WILD = "a\x1b]0;title\x07b\x9b2J\u202ec"


def test_what_is_said_and_a_document_move_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    output.say(f"{WILD}\nsecond")
    output.emit_document({"name": WILD}, Options(output="json"), lambda: "")
    said = capsys.readouterr()
    output.emit_document({}, Options(output="table"), lambda: f"{WILD}\n")

    assert capsys.readouterr().out.removesuffix("\n").isprintable()
    assert all(line.isprintable() for text in said for line in text.splitlines())
    assert said.err.count("\n") == 2 and json.loads(said.out) == {"name": WILD}


def test_a_note_about_what_a_file_holds_moves_no_cursor(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(json.dumps({"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "spec": {"mtls": {"mode": "STRICT"}},
                                                 "metadata": {"name": "default", "namespace": WILD}}))  # fmt: skip
    command = [sys.executable, "-m", "meshtls.cli.main", "guard", "admission", str(tmp_path / "x.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert "nothing in it is in the mesh" in done.stderr and all(line.isprintable() for line in done.stderr.splitlines())
