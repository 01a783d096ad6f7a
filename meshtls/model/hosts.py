"""Hosts that a text names: `name.namespace`, with or without `.svc.cluster.local`, and in URLs and `host:port` the bare name.

Read are environment variables and arguments of containers. A name is a hint of a call, no proof; what is no Service's name is for
the caller to pass over.
"""

import re
from collections.abc import Iterator

_NAME = r"[a-z](?:[-a-z0-9]*[a-z0-9])?"
_QUALIFIED = re.compile(rf"(?<![-a-z0-9.@])({_NAME})\.({_NAME})(?:\.svc(?:\.[a-z0-9.]+)?)?(?![-a-z0-9.])")
_BARE = re.compile(rf"(?:://|^)(?:[^@/\s]*@)?({_NAME})(?::\d+)?(?=/|$|,|\s)")
# who logs in, in a URL
_LOGIN = re.compile(r"://[^@/\s]*@")
# more than this is no address
MOST = 40_000


def named(text: str, namespace: str, arguments: bool = False) -> Iterator[tuple[str, str]]:
    """(namespace, name) of each host in `text`; a bare name belongs to `namespace`, and counts in `arguments` in URLs only."""
    if len(text) > MOST:
        return
    if "@" in text:
        text = _LOGIN.sub("://", text)
    if "." in text:
        for match in _QUALIFIED.finditer(text):
            yield match[2], match[1]
    if "://" in text or (not arguments and ":" in text):
        for match in _BARE.finditer(text):
            yield namespace, match[1]
