"""The only talker to Kubernetes: kinds, authentication, and a small synchronous client over httpx.

Importing this package loads nothing; `client` loads httpx, and `auth` loads the `kubernetes` package only for
kubeconfigs that need a credential plugin.
"""
