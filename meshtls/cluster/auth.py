"""How to reach and convince an API server: kubeconfig first, then the pod's own service account.

    1. --kubeconfig FILE                        2. $KUBECONFIG (several files merge; the first to name a thing wins)
    3. ~/.kube/config                           4. in-cluster: the mounted service account

Tokens, token files, client certificates and passwords are read here with PyYAML alone. Only `exec` plugins and
`auth-provider` entries import the `kubernetes` package, which takes 0.4 s. Key material touches the disk, mode 0600,
only while OpenSSL loads it.
"""

import base64
import binascii
import os
import ssl
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import yaml

from meshtls.cluster.nesting import shallow
from meshtls.errors import InputError

IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_FILE_HINT = "check --kubeconfig and KUBECONFIG"
_PLUGIN_HINT = "run the credential plugin by hand, or log in again"


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """What a connection needs. `authorization` is the header's value, "" for none; `proxy` is None for the environment's; `as_user`: whom to impersonate."""

    server: str
    namespace: str
    who: str
    tls: ssl.SSLContext | None
    server_name: str = ""
    proxy: str | None = None
    authorization: str = ""
    as_user: str = ""
    as_groups: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Access(server={self.server!r}, who={self.who!r})"


def load(kubeconfig: str | None = None, context: str | None = None) -> Access:
    """The access that the flags, the environment and the files give. Raises InputError naming what is missing."""
    if kubeconfig:
        return _from_files([Path(kubeconfig).expanduser()], context, must_exist=True)
    paths = [Path(part).expanduser() for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    if paths:
        return _from_files(paths, context, must_exist=not any(path.exists() for path in paths))
    default = Path("~/.kube/config").expanduser()
    if default.exists() or context:
        return _from_files([default], context, must_exist=True)
    if os.environ.get("KUBERNETES_SERVICE_HOST") and (IN_CLUSTER / "token").exists():
        return _in_cluster()
    raise InputError("no cluster is configured", "give --kubeconfig FILE, set KUBECONFIG, or start one with meshtls lab up")


def _in_cluster() -> Access:
    host = os.environ["KUBERNETES_SERVICE_HOST"]
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    try:
        token = (IN_CLUSTER / "token").read_text().strip()
        tls = ssl.create_default_context(cafile=str(IN_CLUSTER / "ca.crt"))
        namespace = (IN_CLUSTER / "namespace").read_text().strip()
    except (OSError, ssl.SSLError) as error:
        raise InputError(f"the pod's service account cannot be read: {error}", "mount its token into the pod") from error
    return Access(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        namespace=namespace or "default", who="the pod's service account", tls=tls, authorization=f"Bearer {token}",
    )


def _from_files(paths: Iterable[Path], wanted: str | None, must_exist: bool) -> Access:
    merged: dict[str, dict[str, tuple[dict[str, Any], Path]]] = {"clusters": {}, "contexts": {}, "users": {}}
    current = wanted or ""
    for path in paths:
        if not must_exist and not path.exists():
            continue
        config = _read(path)
        current = current or str(config.get("current-context") or "")
        for section, known in merged.items():
            for entry in config.get(section) or []:
                if not isinstance(entry, dict) or not isinstance(entry.get(section[:-1]), dict):
                    raise InputError(f"an entry of {section} is malformed", "compare with kubectl config view", file=str(path))
                known.setdefault(str(entry.get("name")), (entry[section[:-1]], path))
    if not current:
        raise InputError("the kubeconfig has no current context", "give --context NAME, or kubectl config use-context NAME")
    context, _ = _named(merged, "contexts", current)
    cluster, cluster_path = _named(merged, "clusters", str(context.get("cluster") or ""))
    user, user_path = _named(merged, "users", str(context["user"])) if context.get("user") else ({}, cluster_path)
    server = str(cluster.get("server") or "").rstrip("/")
    if not server.startswith(("https://", "http://")):
        raise InputError(f"context {current}: {server!r} is no server URL", file=str(cluster_path))
    authorization, certificate = _credentials(user, user_path, cluster, current)
    return Access(
        server=server,
        namespace=str(context.get("namespace") or "default"),
        who=f"user {context.get('user') or 'anonymous'} of context {current}",
        tls=_tls(cluster, cluster_path, certificate) if server.startswith("https://") else None,
        server_name=str(cluster.get("tls-server-name") or ""),
        proxy=str(cluster["proxy-url"]) if cluster.get("proxy-url") else None,
        authorization=authorization,
        as_user=str(user.get("as") or ""),
        as_groups=tuple(map(str, user.get("as-groups") or ())),
    )


def contexts(kubeconfig: str | None = None) -> list[str]:
    """The names of the contexts that there are to choose from. Raises InputError."""
    paths = [kubeconfig] if kubeconfig else [part for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part] or ["~/.kube/config"]
    configs = [_read(path) for part in paths if (path := Path(part).expanduser()).exists()]
    return sorted({str(entry["name"]) for config in configs for entry in config.get("contexts") or [] if isinstance(entry, dict) and "name" in entry})


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text()
        shallow(text, str(path))
        config = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except FileNotFoundError as error:
        raise InputError("no such kubeconfig", _FILE_HINT, file=str(path)) from error
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else f"not UTF-8 text (byte {error.start})"
        raise InputError(f"the kubeconfig cannot be read: {why}", _FILE_HINT, file=str(path)) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        raise InputError("the kubeconfig is no YAML", _FILE_HINT, file=str(path), line=line, column=column) from error
    if not isinstance(config, dict):
        raise InputError("the kubeconfig is empty or no mapping", _FILE_HINT, file=str(path))
    return config


def _named(merged: dict[str, dict[str, tuple[dict[str, Any], Path]]], section: str, name: str) -> tuple[dict[str, Any], Path]:
    try:
        return merged[section][name]
    except KeyError:
        known = ", ".join(sorted(merged[section])[:10]) or "none"
        raise InputError(f"the kubeconfig has no {section[:-1]} named {name!r}", f"it has: {known}") from None


def _content(holder: dict[str, Any], key: str, path: Path) -> bytes | None:
    """What `KEY-data` (base64) or the file `KEY` (relative to the kubeconfig) holds."""
    if holder.get(f"{key}-data"):
        try:
            return base64.b64decode(str(holder[f"{key}-data"]), validate=True)
        except binascii.Error as error:
            raise InputError(f"{key}-data is no base64", file=str(path)) from error
    return _file(str(holder[key]), path) if holder.get(key) else None


def _file(name: str, path: Path) -> bytes:
    try:
        return (path.parent / Path(name).expanduser()).read_bytes()
    except OSError as error:
        raise InputError(f"the kubeconfig names a file that cannot be read: {error}", file=str(path)) from error


def _credentials(
    user: dict[str, Any], path: Path, cluster: dict[str, Any], context: str
) -> tuple[str, tuple[bytes, bytes] | None]:
    """The Authorization header's value and the client certificate with its key, either of them empty."""
    certificate, key = _content(user, "client-certificate", path), _content(user, "client-key", path)
    pair = (certificate, key) if certificate and key else None
    if user.get("tokenFile"):
        return f"Bearer {_file(str(user['tokenFile']), path).decode().strip()}", pair
    if user.get("token"):
        return f"Bearer {user['token']}", pair
    if user.get("username") and user.get("password"):
        secret = base64.b64encode(f"{user['username']}:{user['password']}".encode()).decode()
        return f"Basic {secret}", pair
    if user.get("exec"):
        return _plugin(user["exec"], cluster, path, pair)
    if user.get("auth-provider"):
        return _provider(user, cluster, path, context), pair
    return "", pair


def _plugin(
    plugin: dict[str, Any], cluster: dict[str, Any], path: Path, pair: tuple[bytes, bytes] | None
) -> tuple[str, tuple[bytes, bytes] | None]:
    from kubernetes.config.config_exception import ConfigException
    from kubernetes.config.exec_provider import ExecProvider
    from kubernetes.config.kube_config import ConfigNode

    try:
        status = ExecProvider(
            ConfigNode("exec", plugin), str(path.parent.resolve()), ConfigNode("cluster", cluster)
        ).run()
    except (ConfigException, OSError) as error:
        hint = str(plugin.get("installHint") or _PLUGIN_HINT).strip()
        raise InputError(f"the credential plugin failed: {str(error)[:300]}", hint, file=str(path)) from error
    if status.get("clientCertificateData") and status.get("clientKeyData"):
        pair = (status["clientCertificateData"].encode(), status["clientKeyData"].encode())
    if not status.get("token") and not pair:
        raise InputError("the credential plugin gave neither token nor certificate", _PLUGIN_HINT, file=str(path))
    return (f"Bearer {status['token']}" if status.get("token") else ""), pair


def _provider(user: dict[str, Any], cluster: dict[str, Any], path: Path, context: str) -> str:
    from kubernetes.client import Configuration
    from kubernetes.config.config_exception import ConfigException
    from kubernetes.config.kube_config import KubeConfigLoader

    config = {
        "current-context": context,
        "contexts": [{"name": context, "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": cluster.get("server")}}],
        "users": [{"name": "u", "user": user}],
    }
    configuration = Configuration()
    try:
        KubeConfigLoader(config, config_base_path=str(path.parent)).load_and_set(configuration)
    except ConfigException as error:
        raise InputError(f"the auth-provider failed: {str(error)[:300]}", "log in again", file=str(path)) from error
    # the package has kept the token under either name, depending on its version
    token = configuration.api_key.get("BearerToken") or configuration.api_key.get("authorization")
    if not token:
        raise InputError("the auth-provider gave no token", "use an exec plugin, or log in again", file=str(path))
    return str(token)


def _tls(cluster: dict[str, Any], path: Path, pair: tuple[bytes, bytes] | None) -> ssl.SSLContext:
    authority = _content(cluster, "certificate-authority", path)
    try:
        tls = ssl.create_default_context(cadata=authority.decode()) if authority else ssl.create_default_context()
    except (ssl.SSLError, UnicodeDecodeError) as error:
        raise InputError("certificate-authority is no PEM certificate", file=str(path)) from error
    # clusters' own authorities often lack the extensions that Python 3.13 demands and kubectl does not
    tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if cluster.get("insecure-skip-tls-verify"):
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    if pair:
        with tempfile.TemporaryDirectory(prefix="meshtls-") as folder:
            file = Path(folder) / "client.pem"
            file.touch(mode=0o600)
            file.write_bytes(pair[0] + b"\n" + pair[1])
            try:
                tls.load_cert_chain(file)
            except (ssl.SSLError, OSError) as error:
                raise InputError("the client certificate and its key cannot be used", file=str(path)) from error
    return tls
