"""What can go wrong, named by whose fault it is.

    MeshtlsError            every error that meshtls raises on purpose; carries its exit code and the next thing to do
    ├── InputError          yours: a file, flag, name or manifest that cannot be used                          exit 2
    ├── ClusterError        theirs: the API server, or what it says                                            exit 3
    │   ├── Unreachable     no answer: connection refused, name not found, TLS not trusted
    │   ├── Unauthorized    401
    │   ├── Forbidden       403
    │   ├── NotFound        404
    │   ├── Conflict        409, 412: somebody else changed it, or it exists already
    │   ├── Invalid         400, 422: the server does not take the object
    │   ├── Throttled       429, still after retries
    │   └── ServerFault     5xx, or an answer that is no Kubernetes answer
    ├── NoData              the question could be asked, and nothing answered it                               exit 3
    ├── LabError            this machine's: no user namespaces, a port in use, a proxy that does not start      exit 3
    ├── GateError           a gate was not met, or a step was rolled back                                      exit 4
    └── DeadlineError       --timeout ran out                                                                  exit 124

One line to the user each: what is wrong, then `hint`: what to do next.
"""


class MeshtlsError(Exception):
    """Base of all errors meant for the user. `hint` says what to do next; `exit_code` is the process's."""

    exit_code = 3

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InputError(MeshtlsError):
    """The user's input cannot be used. `file`, `line` and `column` (1-based) are set where they are known."""

    exit_code = 2

    def __init__(self, message: str, hint: str = "", *, file: str = "", line: int = 0, column: int = 0) -> None:
        where = ":".join(str(part) for part in (file, line, column) if part)
        super().__init__(f"{where}: {message}" if where else message, hint)
        self.file, self.line, self.column = file, line, column


class ClusterError(MeshtlsError):
    """The cluster refused or failed. `status` is the HTTP status (0: none), `reason` Kubernetes' own word for it."""

    def __init__(self, message: str, hint: str = "", *, status: int = 0, reason: str = "") -> None:
        super().__init__(message, hint)
        self.status, self.reason = status, reason


class Unreachable(ClusterError):
    """No answer from the API server."""


class Unauthorized(ClusterError):
    """401: the credentials are not accepted."""


class Forbidden(ClusterError):
    """403: not allowed."""


class NotFound(ClusterError):
    """404: no such object, or no such resource."""


class Conflict(ClusterError):
    """409 or 412: the object changed meanwhile, or exists already."""


class Invalid(ClusterError):
    """400 or 422: the server does not accept the object."""


class Throttled(ClusterError):
    """429, still after the retries that the server asked for."""


class ServerFault(ClusterError):
    """5xx, or an answer that is not Kubernetes'."""


class NoData(MeshtlsError):
    """Nothing answered the question: never to be read as a good answer."""


class LabError(MeshtlsError):
    """This machine cannot do what the lab needs."""


class GateError(MeshtlsError):
    """A gate was not met, or a step was rolled back."""

    exit_code = 4


class DeadlineError(MeshtlsError):
    """The time given by --timeout is over."""

    exit_code = 124
