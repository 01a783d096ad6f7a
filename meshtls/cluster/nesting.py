"""YAML that is nested to kill its reader is refused before it is read.

PyYAML's fast reader composes nodes by recursion in C, which ends the process (SIGSEGV) long before Python's own limit would
be met; since 6.0.4 its scanner stops at 1,000, which runs ahead of the events. Everything that reads YAML from outside asks here first.
"""

import re

import yaml

from meshtls.errors import InputError

LIMIT = 900
TOO_DEEP, DEEP_HINT = "nested too deeply", "no Kubernetes object is nested like this"
_INDENT = re.compile(r"^[ \t?:-]{900}", re.MULTILINE)


def shallow(text: str, file: str, line: int = 0) -> None:
    """Raises InputError where collections are nested deeper than LIMIT. Whatever else is wrong is left to the reader."""
    if text.count("[") + text.count("{") <= LIMIT and _INDENT.search(text) is None:
        return
    depth = 0
    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth > LIMIT:
                raise InputError(TOO_DEEP, DEEP_HINT, file=file, line=line)
    except yaml.YAMLError as error:
        if "nesting depth" in str(getattr(error, "problem", "")):
            raise InputError(TOO_DEEP, DEEP_HINT, file=file, line=line) from error
