"""Who asks: bearer tokens and impersonation.

Static tokens belong to named users. Service account tokens are JWTs signed with the lab's own key (HS256): they name
the account, die with it and expire. There are no client certificates; a request without a token is system:anonymous.
"""
import base64
import hashlib
import hmac
import json
import secrets
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from starlette.datastructures import Headers

from meshtls.lab.api import status
from meshtls.lab.api.field import quote
from meshtls.lab.api.store import Store

ISSUER = "https://kubernetes.default.svc.cluster.local"


class User(msgspec.Struct, frozen=True):
    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: dict[str, list[str]] = {}

    def info(self) -> dict[str, Any]:
        """As authentication.k8s.io's UserInfo."""
        found = {"username": self.name, "uid": self.uid, "groups": list(self.groups), "extra": self.extra}
        return {key: value for key, value in found.items() if value}


ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))
ADMIN = User("lab-admin", ("system:masters", "system:authenticated"))


def service_account(namespace: str, name: str, uid: str = "") -> User:
    return User(f"system:serviceaccount:{namespace}:{name}",
                ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"), uid)


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Tokens:
    """The tokens that the lab accepts. `key` signs service account tokens; `static` maps tokens to users."""

    def __init__(self, store: Store, static: Mapping[str, User] = {}, key: bytes = b"") -> None:
        self._store, self._static, self._key = store, dict(static), key or secrets.token_bytes(32)

    def add(self, token: str, user: User) -> None:
        self._static[token] = user

    def mint(self, namespace: str, name: str, *, ttl_s: int = 3600, audiences: list[str] | None = None,
             bound: dict[str, Any] | None = None) -> str:
        """A service account token. `bound` {"kind", "name", "uid"} ties it to a pod or secret. Raises LookupError
        without an account."""
        account = self._store.get("serviceaccounts", namespace, name)
        if account is None:
            raise LookupError(f'serviceaccount "{name}" not found')
        now = int(time.time())
        private: dict[str, Any] = {"namespace": namespace,
                                   "serviceaccount": {"name": name, "uid": account["metadata"]["uid"]}}
        if bound:
            private[bound["kind"].lower()] = {"name": bound["name"], "uid": bound.get("uid", "")}
        claims = {"iss": ISSUER, "aud": audiences or [ISSUER], "sub": f"system:serviceaccount:{namespace}:{name}",
                  "iat": now, "nbf": now,
                  "exp": now + ttl_s, "jti": str(uuid.uuid4()), "kubernetes.io": private}
        signed = f"{_b64(json.dumps({'alg': 'HS256', 'typ': 'JWT'}).encode())}.{_b64(json.dumps(claims).encode())}"
        return f"{signed}.{self._sign(signed)}"

    def _sign(self, text: str) -> str:
        return _b64(hmac.new(self._key, text.encode(), hashlib.sha256).digest())

    def claims(self, token: str) -> dict[str, Any]:
        """What a service account token says; nothing for other tokens."""
        signed, _, signature = token.rpartition(".")
        if not signed or not hmac.compare_digest(signature, self._sign(signed)):
            return {}
        return dict(json.loads(base64.urlsafe_b64decode(signed.partition(".")[2] + "==")))

    def user(self, token: str, audiences: Sequence[str] = (ISSUER,)) -> User | None:
        """Whose token it is; None for unknown, expired, forged ones, those for others than `audiences` and those of
        deleted accounts."""
        known = self._static.get(token)
        if known is not None:
            return known
        claims = self.claims(token)
        if not claims:
            return None
        private = claims["kubernetes.io"]
        namespace, account = private["namespace"], private["serviceaccount"]
        held = self._store.get("serviceaccounts", namespace, account["name"])
        fits = bool(set(audiences) & set(claims["aud"]))
        if claims["exp"] < time.time() or held is None or held["metadata"]["uid"] != account["uid"] or not fits:
            return None
        pod = private.get("pod")
        if pod:
            stored = self._store.get("pods", namespace, pod["name"])
            if stored is None or (pod["uid"] and stored["metadata"]["uid"] != pod["uid"]):
                return None
        extra = {"authentication.kubernetes.io/credential-id": [f"JTI={claims['jti']}"]}
        if pod:
            extra["authentication.kubernetes.io/pod-name"] = [pod["name"]]
            extra["authentication.kubernetes.io/pod-uid"] = [pod["uid"]]
        return msgspec.structs.replace(service_account(namespace, account["name"], account["uid"]), extra=extra)


def impersonated(headers: Headers) -> User | None:
    """The user that the Impersonate-* headers name; None without them. Raises ApiError 400 for headers without a name."""
    name, groups, uid = headers.get("impersonate-user"), headers.getlist("impersonate-group"), headers.get("impersonate-uid", "")
    if not name:
        if not groups and "impersonate-uid" not in headers:
            return None
        listed = "[]string{" + ", ".join(map(quote, groups)) + "}" if groups else "[]string(nil)"
        raise status.bad_request(f'requested &user.DefaultInfo{{Name:"", UID:{quote(uid)}, Groups:{listed}, '
                                 'Extra:map[string][]string(nil)} without impersonating a user name')
    if name.startswith("system:serviceaccount:") and name.count(":") == 3 and not groups:
        _, _, namespace, account = name.split(":")
        return service_account(namespace, account)
    extra = {key.removeprefix("impersonate-extra-"): [value] for key, value in headers.items()
             if key.startswith("impersonate-extra-")}
    known = name == "system:anonymous" or "system:authenticated" in groups
    return User(name, (*groups, *(() if known else ("system:authenticated",))), uid, extra)
