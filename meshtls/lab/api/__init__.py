"""A small Kubernetes API server: one in-process store, answered as kube-apiserver answers.

    store      objects, versions, history, subscribers: the only state
    resources  which kinds there are                      schema     the fields of each kind
    app        HTTP: routes, identity, the order of steps that every request takes
"""
