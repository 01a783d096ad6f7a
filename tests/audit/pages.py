"""The generated part of the audit's documentation. Write it anew with `python -m tests.audit.pages`; a test compares."""

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import yaml

from meshtls.audit.accept import CODE, TITLE
from meshtls.audit.rules import RULES
from tests.audit import cases

DOCS = Path(__file__).parents[2] / "docs"
BEGIN, END = "<!-- generated: python -m tests.audit.pages -->", "<!-- end of what is generated -->"

COUNTS = {"PA": 23, "AM": 18, "DR": 11, "CL": 19, "IN": 15, "KP": 5, "WH": 7, "NC": 10, "LB": 4, "SF": 1, "TL": 1, "UD": 1, "EG": 1,
          "ST": 1, "CT": 1, "EF": 1, "SE": 11, "EV": 12, "PP": 21, "RB": 18}
CATALOGUE = tuple(f"{part}-{number:02d}" for part, count in COUNTS.items() for number in range(1, count + 1))

# what no rule covers: id -> the part of meshtls whose matter it is, or why it cannot be told from objects
ELSEWHERE = {
    "PA-21": "not decidable from one cluster's objects: audit each primary",
    "PA-22": "cluster access: the version served is taken from discovery",
    "PA-23": "not decidable: a race at start, fixed in istiod; the probe asks each port after a restart",
    "AM-05": "not decidable: depends on the build of istiod; the probe asks each port",
    "AM-07": "probe",
    "DR-09": "policy: a rule with workloadSelector is asked for its own clients only",
    "CL-14": "policy: calls within a pod do not cross a proxy",
    "IN-06": "policy: both lists of containers are looked at",
    "IN-07": "policy: gateways and proxyless agents are data planes of their own",
    "IN-15": "not decidable: rules of a virtual machine are in no object",
    "KP-01": "policy: rewritten probes go to 15020, which is never captured",
    "WH-04": "not decidable: calls through the API server's proxy are in no object",
    "WH-05": "probe",
    "EG-01": "policy: what leaves the mesh is not judged by PeerAuthentication",
    "SE-03": "not decidable: whether an application trusts the header",
    "SE-05": "policy: 15020, 15021 and 15090 are never captured",
    "SE-07": "policy: port 22 is captured as any other",
    "SE-08": "not decidable from what is read: added capabilities, privileged containers and node access bypass a sidecar",
    "SE-10": "not decidable from objects, and no bypass: the proxy drops such connections",
    "EV-02": "observe",
    "EV-03": "observe",
    "EV-05": "observe",
    "EV-06": "observe",
    "EV-07": "observe",
    "EV-08": "observe",
    "EV-09": "observe",
    "EV-10": "observe",
    "EV-11": "not decidable: another cluster's telemetry",
    "EV-12": "observe",
    "PP-03": "probe",
    "PP-04": "probe",
    "PP-06": "probe",
    "PP-07": "probe",
    "PP-08": "probe",
    "PP-10": "probe",
    "PP-11": "probe",
    "PP-12": "probe",
    "PP-13": "probe",
    "PP-15": "probe",
    "PP-17": "not decidable on one node: the probe says where its pods ran",
    "PP-18": "probe",
    "PP-19": "probe",
    "PP-20": "probe",
    "PP-21": "probe",
    "RB-01": "gate",
    "RB-02": "gate",
    "RB-03": "gate",
    "RB-04": "gate",
    "RB-05": "gate",
    "RB-07": "gate",
    "RB-10": "gate",
    "RB-14": "predict",
    "RB-15": "gate",
    "RB-16": "gate",
}


def findings() -> str:
    """docs/findings.md: an entry for each code."""
    lines = ["# Findings", "", "Every code of the audit. Codes are never reused. Severities: `critical` and `error` break traffic or lock you out, `warning`",
             "breaks it where objects cannot say so for certain or leaves STRICT unenforced, `info` is good to know.", "", BEGIN, ""]
    bad = {code: case for code, name, case in cases.everything() if name == "bad"}
    for rule in RULES:
        module = inspect.getdoc(importlib.import_module(rule.find.__module__)) or ""
        lines += [f'<a id="{rule.code.lower()}"></a>', f"## {rule.code}: {rule.title}", "",
                  f"{rule.severity}, {rule.confidence}; catalogue {', '.join(rule.catalogue)}; looks at {', '.join(rule.about)}", "", module, "",
                  "Found in, for example:", "", "```yaml", *_example(bad[rule.code]), "```", ""]
    lines += [f'<a id="{CODE.lower()}"></a>', f"## {CODE}: {TITLE}", "", "warning", "",
              "An accepted finding carries its owner, its reason and the day on which the acceptance ends; see audit.md.", "", END]
    return "\n".join(lines) + "\n"


def _example(case: dict) -> Iterator[str]:
    for document in cases.documents(case["objects"]):
        yield from yaml.safe_dump(document.body, sort_keys=False, default_flow_style=None, width=110).rstrip().split("\n")
        yield "---"


def table() -> str:
    """The table of docs/audit.md: each entry of the catalogue and where it is dealt with."""
    by_id: dict[str, list[str]] = {}
    for rule in RULES:
        for entry in rule.catalogue:
            by_id.setdefault(entry, []).append(f"[{rule.code}](findings.md#{rule.code.lower()})")
    lines = [BEGIN, "", "| entry | dealt with by |", "|---|---|"]
    lines += [f"| {entry} | {', '.join(by_id[entry]) if entry in by_id else ELSEWHERE[entry]} |" for entry in CATALOGUE]
    return "\n".join([*lines, "", END])


def audit_page(current: str) -> str:
    """docs/audit.md with its table renewed."""
    before, _, rest = current.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + table() + after


if __name__ == "__main__":
    (DOCS / "findings.md").write_text(findings())
    page = DOCS / "audit.md"
    page.write_text(audit_page(page.read_text()))
