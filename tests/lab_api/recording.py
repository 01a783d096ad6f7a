"""Recorded requests and answers of a real API server, replayed: a case's request, and what of its answer is compared.

Values that differ every time (uids, times, addresses) or every day (ages of fixed dates) are masked. A case may use earlier answers as {{case.path}}.
"""
import json
import re
from typing import Any

import httpx

Case = dict[str, Any]
MASKS = ((r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "<uid>"),
         (r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z\b", "<time>"),
         (r"(https?://)[^/\s\"]*(:\d+)?", r"\1<host>"), (r"dial tcp[^\"]*", "dial tcp <failure>"),
         (r"^\d+y(\d+d)?$", "<years>"))


def at(value: Any, path: str) -> Any:
    """The value at a.b[0].c, None when there is none."""
    for name, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", path):
        try:
            value = value[int(index)] if index else value[name.replace("~", ".")]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def filled(value: Any, answers: dict[str, Any]) -> Any:
    """With {{case.path}} replaced by what the earlier case answered."""
    if isinstance(value, dict):
        return {key: filled(item, answers) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, answers) for item in value]
    if not isinstance(value, str):
        return value

    def found(match: re.Match[str]) -> str:
        return str(at(answers[match[1]], match[2]))
    return re.sub(r"\{\{([\w-]+)\.([^}]+)\}\}", found, value)


def masked(value: Any) -> Any:
    text = json.dumps(value)
    plain = json.loads(text)

    def walk(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: walk(child) for key, child in item.items()}
        if isinstance(item, list):
            return [walk(child) for child in item]
        if isinstance(item, str):
            for form, word in MASKS:
                item = re.sub(form, word, item)
        return item
    return walk(plain)


def ask(client: httpx.Client, case: Case, answers: dict[str, Any]) -> tuple[int, Any, httpx.Headers]:
    """(status, parsed answer or event list, headers)"""
    headers = {"Content-Type": case.get("type", "application/json"), "Accept": case.get("accept", "application/json"),
               "User-Agent": "meshtls-tests/1"}
    if "as" in case:
        headers["Impersonate-User"] = case["as"]
    if "anonymous" in case:
        headers["Authorization"] = "Bearer not-a-token"
    body = filled(case.get("body"), answers)
    content = None if body is None else (body if isinstance(body, str) else json.dumps(body)).encode()
    request = client.build_request(case["method"], filled(case["path"], answers),
                                   params=filled(case.get("query", {}), answers),
                                   headers=headers, content=content)
    response = client.send(request, stream="stream" in case)
    if "stream" in case:
        events: list[Any] = []
        for line in response.iter_lines():
            events.append(json.loads(line) if line.startswith("{") else line)
            if len(events) >= case["stream"]:
                break
        response.close()
        only = len(events) == 1 and isinstance(events[0], dict) and events[0].get("kind") == "Status"
        return response.status_code, events[0] if only else events, response.headers
    try:
        return response.status_code, response.json(), response.headers
    except ValueError:
        return response.status_code, response.text, response.headers


def told(case: Case, code: int, answer: Any, headers: httpx.Headers) -> Case:
    """What of an answer is compared, in the form of the recording's `want`."""
    found: Case = {"status": code}
    if isinstance(answer, dict) and answer.get("kind") == "Status":
        found["Status"] = {key: answer[key] for key in ("status", "reason", "message", "code") if key in answer}
        details = answer.get("details") or {}
        found["Status"]["details"] = {key: details[key] for key in ("name", "group", "kind", "causes")
                                      if key in details}
    elif isinstance(answer, str):
        found["text"] = answer.strip()[:300]
    elif "stream" in case:
        found["events"] = [[event.get("type"), at(event, "object.kind"), at(event, "object.metadata.name")]
                           for event in answer]
    if case.get("keep"):
        found["keep"] = {path: at(answer, path) for path in case["keep"]}
    if "warning" in headers:
        found["warning"] = headers["warning"]
    return masked(found)
