"""meshtls: move namespaces to Istio STRICT mutual TLS, knowing what breaks before it does."""

__version__ = "0.1.0"
