"""CEL by cel-python: rules of custom resource definitions and validating admission policies.

Compiled programs are kept. cel-python is imported when the first rule is asked for: most labs never need it. What
Kubernetes adds to CEL is covered as far as text functions go; its URL, IP, quantity and authorizer libraries are not.
"""
import functools
import json
import re
from collections.abc import Callable
from typing import Any


class CelError(Exception):
    """The expression cannot be compiled or evaluated."""


def _text_functions() -> dict[str, Callable[..., Any]]:
    from celpy import celtypes
    text, number, listed = celtypes.StringType, celtypes.IntType, celtypes.ListType
    return {
        "lowerAscii": lambda value: text(value.lower()),
        "upperAscii": lambda value: text(value.upper()),
        "trim": lambda value: text(value.strip()),
        "split": lambda value, by,
        limit=-1: listed([text(part) for part in value.split(by, limit if limit < 0 else int(limit) - 1)]),
        "join": lambda value, by="": text(by.join(value)),
        "replace": lambda value, old, new, count=-1: text(value.replace(old, new, int(count))),
        "substring": lambda value, start, end=None: text(value[int(start):None if end is None else int(end)]),
        "indexOf": lambda value, part: number(value.find(part)),
        "find": lambda value, form: text(found[0] if (found := re.search(form, value)) else ""),
    }


@functools.lru_cache(maxsize=512)
def _program(expression: str) -> Any:
    import celpy
    try:
        environment = celpy.Environment()
        return environment.program(environment.compile(expression), functions=_text_functions())
    except Exception as error:
        raise CelError(f"compilation failed: {str(error).splitlines()[0]}") from error


def evaluate(expression: str, variables: dict[str, Any]) -> Any:
    """The expression's value as plain JSON. Raises CelError, also for what the expression cannot find."""
    from celpy.adapter import CELJSONEncoder, json_to_cel
    from celpy.evaluation import CELEvalError
    program = _program(expression)
    try:
        value = program.evaluate({name: json_to_cel(value) for name, value in variables.items()})
        return json.loads(json.dumps(value, cls=CELJSONEncoder))
    except CELEvalError as error:
        told = str(error.args[0]) if error.args else "evaluation failed"
        raise CelError(re.sub(r"^no such member in mapping: '(.*)'$", r"no such key: \1", told)) from error
    except (TypeError, ValueError, KeyError) as error:
        raise CelError(str(error)) from error


def compiles(expression: str) -> str:
    """"" or why the expression cannot be compiled."""
    try:
        _program(expression)
    except CelError as error:
        return str(error)
    return ""


def unknown(expression: str, known: list[str]) -> str:
    """"" or which variable an admission expression has not: `params` without a paramKind, an undeclared variables.x."""
    bare = re.sub(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", "''", expression)
    if "params" not in known and (found := re.search(r"(?<![\w.])params\b", bare)):
        return (f"compilation failed: ERROR: <input>:1:{found.start() + 1}: undeclared reference to 'params' (in container "
                "'')")
    for found in re.finditer(r"(?<![\w.])variables\.(\w+)", bare):
        if f"variables.{found[1]}" not in known:
            return f"compilation failed: ERROR: <input>:1:{found.start() + 10}: undefined field '{found[1]}'"
    return ""


def literal(expression: str) -> str:
    """The type of an expression that is a single literal, "" for any other."""
    text = expression.strip()
    for form, kind in ((r"-?\d+", "int"), (r"-?\d+\.\d+", "double"), (r"'[^']*'|\"[^\"]*\"", "string"),
                       ("true|false", "bool")):
        if re.fullmatch(form, text):
            return kind
    return ""


def rule(rule: dict[str, Any], value: Any, old: Any) -> str | None:
    """None if an x-kubernetes-validations rule holds for `value`, else what it says. Rules about oldSelf need an old
    value. Raises CelError."""
    text = rule["rule"]
    if re.search(r"\boldSelf\b", text) and old is None:
        return None
    variables = {"self": value, "oldSelf": old}
    if evaluate(text, variables) is True:
        return None
    if rule.get("messageExpression"):
        try:
            said = evaluate(rule["messageExpression"], variables)
        except CelError:
            said = ""
        if isinstance(said, str) and said.strip() and "\n" not in said:
            return said.strip()
    return rule.get("message") or f"failed rule: {text.strip()}"
