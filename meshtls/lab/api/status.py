"""Refusals: every error answer of the API is a Status object, and each has one function here.

`qualified` is "plural" or "plural.group", as in the API server's messages: 'peerauthentications.security.istio.io "x"
not found'.
"""
import re
from collections.abc import Sequence
from typing import Any

from meshtls.lab.api.field import FieldError

_BARE = {"", "BadRequest", "Unauthorized", "InternalError", "RequestEntityTooLarge", "NotAcceptable", "UnsupportedMediaType"}
"""Reasons whose Status has no details unless there are some."""


class ApiError(Exception):
    """A refusal that becomes a Status. `details` as in Status.details; `text` set means a plain-text body instead."""

    def __init__(self, code: int, reason: str, message: str, *, details: dict[str, Any] | None = None,
                 text: str = "") -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message
        self.details = {key: value for key, value in (details or {}).items() if value not in ("", None, [])}
        self.text = text

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                                 "message": self.message}
        if self.reason:
            found["reason"] = self.reason
        if self.details or self.reason not in _BARE:
            found["details"] = self.details
        return {**found, "code": self.code}


def _about(qualified: str, name: str, **more: Any) -> dict[str, Any]:
    plural, _, group = qualified.partition(".")
    return {"name": name, "group": group, "kind": plural, **more}


def not_found(qualified: str, name: str) -> ApiError:
    return ApiError(404, "NotFound", f'{qualified} "{name}" not found', details=_about(qualified, name))


def unknown_resource() -> ApiError:
    return ApiError(404, "NotFound", "the server could not find the requested resource")


def no_such_path() -> ApiError:
    return ApiError(404, "NotFound", "404 page not found", text="404 page not found\n")


def already_exists(qualified: str, name: str, *, leaving: bool = False) -> ApiError:
    told = "object is being deleted: " if leaving else ""
    return ApiError(409, "AlreadyExists", f'{told}{qualified} "{name}" already exists', details=_about(qualified, name))


def conflict(qualified: str, name: str, why: str) -> ApiError:
    return ApiError(409, "Conflict", f'Operation cannot be fulfilled on {qualified} "{name}": {why}',
                    details=_about(qualified, name))


def modified(qualified: str, name: str) -> ApiError:
    return conflict(qualified, name,
                    "the object has been modified; please apply your changes to the latest version and try again")


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def forbidden(qualified: str, name: str, why: str) -> ApiError:
    subject = f'{qualified} "{name}"' if name else qualified
    return ApiError(403, "Forbidden", f"{subject} is forbidden: {why}", details=_about(qualified, name))


def invalid(kind: str, group: str, name: str, errors: Sequence[FieldError]) -> ApiError:
    """422 with one cause an error; several are told in brackets."""
    seen: dict[str, FieldError] = {}
    for error in errors:
        seen.setdefault(str(error), error)
    text = next(iter(seen)) if len(seen) == 1 else "[" + ", ".join(seen) + "]"
    causes = [{"reason": error.reason, "message": error.body, "field": error.path} for error in errors]
    label = f"{kind}.{group}" if group else kind
    return ApiError(422, "Invalid", f'{label} "{name}" is invalid: {text}',
                    details={"name": name, "group": group, "kind": kind, "causes": causes})


def unprocessable(message: str) -> ApiError:
    return ApiError(422, "Invalid", message)


def internal(message: str) -> ApiError:
    return ApiError(500, "InternalError", f"Internal error occurred: {message}",
                    details={"causes": [{"message": message}]})


def unsupported_media(message: str) -> ApiError:
    return ApiError(415, "UnsupportedMediaType", message)


def unknown_format(*accepted: str) -> ApiError:
    return unsupported_media("the body of the request was in an unknown format - accepted media types include: "
                             + ", ".join(accepted))


def not_allowed() -> ApiError:
    return ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")


def too_large(limit: int) -> ApiError:
    return ApiError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit}")


def not_acceptable(message: str) -> ApiError:
    return ApiError(406, "NotAcceptable", message)


def whole(text: str) -> int:
    """A number in a query. Raises ApiError 400."""
    if not re.fullmatch(r"[-+]?\d+", text):
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(text)


def success(qualified: str, name: str, uid: str) -> dict[str, Any]:
    """The answer to a delete that removed the object."""
    details = {key: value for key, value in _about(qualified, name, uid=uid).items() if value}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
