"""Trouble on demand: the annotation `lab.meshtls.dev/api-answers: "503 3s"` on ConfigMap istio-system/istio makes the API answer every request
so for that long from the write on. It ends by itself, since nobody could take it away."""
import re
import time

from meshtls.lab.api import status
from meshtls.lab.api.store import Event, Store

ANSWERS = "lab.meshtls.dev/api-answers"
_REASONS = {429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable"}


class Trouble:
    def __init__(self, store: Store) -> None:
        self._code, self._until = 0, 0.0
        store.subscribe(self._heard)

    def _heard(self, event: Event) -> None:
        metadata = event.object["metadata"]
        if (event.resource, metadata.get("namespace"), metadata["name"]) != ("configmaps", "istio-system", "istio"):
            return
        said = (metadata.get("annotations") or {}).get(ANSWERS, "")
        found = re.fullmatch(r"(429|500|503) ([0-9.]+)(ms|s)", said)
        if found and said != (((event.old or {}).get("metadata") or {}).get("annotations") or {}).get(ANSWERS):
            self._code, self._until = int(found[1]), time.monotonic() + float(found[2]) / (1000 if found[3] == "ms" else 1)

    def permit(self) -> None:
        """Raises ApiError while there is trouble."""
        if time.monotonic() < self._until:
            raise status.ApiError(self._code, _REASONS[self._code], "the lab was told to answer so")
