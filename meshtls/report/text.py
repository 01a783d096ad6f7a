"""Text from outside is made safe to look at: no byte of a manifest or a log can move the cursor or hide another.

Names, messages and log lines reach a terminal and a web page. Control characters, terminal escapes, and the Unicode
marks that reorder or hide text are shown as escapes; a long text is cut where a limit is given.
"""

import json
import re

# C0 and C1 controls except newline, DEL, soft hyphen, zero-width and bidirectional marks, line separators, tags, surrogates
_UNSAFE = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code == 9:
        return " "
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def safe(text: str, limit: int = 0) -> str:
    """`text` with everything that acts instead of showing escaped; newlines stay. `limit` cuts, in characters."""
    if limit and len(text) > limit:
        text = text[: limit - 3] + "..."
    return _UNSAFE.sub(_escape, text)


def in_json(text: str) -> str:
    """JSON text with the same characters written as JSON's own escapes: it still parses to what it was."""
    return _UNSAFE.sub(lambda m: json.dumps(m[0])[1:-1], text)


def line(text: str, limit: int = 0) -> str:
    """The same on one line."""
    return safe(text.replace("\r\n", " ").replace("\n", " "), limit)


def plural(count: int, noun: str) -> str:
    """`1 finding`, `2 findings`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
