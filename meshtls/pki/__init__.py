"""A test CA and SPIFFE certificates, good and flawed; and whose a certificate is. Pure: files and the clock are the
command line's.

    identity   spiffe://... as Istio writes it          authority  a test CA, never the mesh's own
    workload   good leaves                              flaws      one list of certificates that a mesh must refuse
    inspect    what a certificate says, in words
"""
