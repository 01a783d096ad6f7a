"""The lab's node: pods as network namespaces with real processes and real Envoys, or on the loopback where namespaces are refused.

    world linux runner rootfs runtime                          namespaces and processes
    network netlink nft rules dns loopback shim                packets, and names
    node pod container status environment images logs register what a kubelet does
    probes health http1 agent                                  what is asked of pods, and pilot-agent
    plane xds ads ca                                           what istiod does
"""
