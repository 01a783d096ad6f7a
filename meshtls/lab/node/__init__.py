"""The lab's node: pods as network namespaces with real processes and real Envoys. Linux only; standard library but for the CA.

    world linux runner rootfs runtime        namespaces and processes        network netlink nft rules     packets
    pod container status probes environment images logs agent     what a kubelet does, and pilot-agent
    plane xds ca                             what istiod does                dns sniff                     names, and the wire's witness
"""
