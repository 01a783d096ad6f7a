"""A container's root directory, made inside its own mount namespace: the host's programs read-only, everything else its own.

Shown from the host: /usr, /bin, /lib*, /opt, /nix, /gnu and the lab's Python wherever it lives, all read-only. Not shown: homes, /var,
/run, /srv, /mnt and the rest. /etc is a directory of links to the host's entries, so that single files in it can be the pod's own. A mount
path inside something read-only turns that directory into such a directory of links first. Nothing outside is ever written.
"""
import os
from typing import Any

from meshtls.lab.node import linux

SHOWN = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "opt", "nix", "gnu")
OWN_FILES = ("resolv.conf", "hosts", "hostname")
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
HOST, TOOLS = "/.host", "/.lab/bin"


def build(root: str, spec: dict[str, Any]) -> None:
    """Make and enter the root. `spec`: python (prefix, executable, directories to hide), files {path: text}, mounts [[source, target, readonly]],
    readonly (of the root itself). Raises OSError. The caller is in a mount namespace of its own."""
    linux.mount("tmpfs", root, "tmpfs", data="mode=0755")
    for name in ("proc", "dev", "tmp", "run", "var/tmp", "var/run", ".host/etc", ".lab/bin", ".lab/empty", "etc", "root"):
        os.makedirs(f"{root}/{name}", mode=0o755)
    for name in ("tmp", "var/tmp"):
        os.chmod(f"{root}/{name}", 0o1777)
    for name in SHOWN:
        if os.path.islink(f"/{name}"):
            os.symlink(os.readlink(f"/{name}"), f"{root}/{name}")
        elif os.path.isdir(f"/{name}"):
            os.mkdir(f"{root}/{name}")
            linux.bind(f"/{name}", f"{root}/{name}", readonly=True)
    linux.bind("/etc", f"{root}{HOST}/etc", readonly=True)
    for name in os.listdir("/etc"):
        if name not in OWN_FILES:
            os.symlink(f"{HOST}/etc/{name}", f"{root}/etc/{name}")
    _devices(root)
    for path, text in spec["files"].items():
        _place(root, os.path.dirname(path))
        with open(root + path, "w", encoding="utf-8") as file:
            file.write(text)
    prefix, executable, hidden = spec["python"]
    if not any(prefix == f"/{name}" or prefix.startswith(f"/{name}/") for name in SHOWN):
        _mount(root, prefix, prefix, readonly=True)
    for path in (path for path in hidden if os.path.isdir(root + path)):
        linux.bind(f"{root}/.lab/empty", root + path, readonly=True)
    for name in ("python", "python3"):
        os.symlink(executable, f"{root}{TOOLS}/{name}")
    for source, target, readonly in spec["mounts"]:
        _mount(root, source, target, readonly)
    try:
        linux.mount("proc", f"{root}/proc", "proc")
    except OSError:
        linux.bind("/proc", f"{root}/proc", readonly=False)
    if spec["readonly"]:
        linux.mount("none", root, flags=linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY)
    linux.pivot_root(root)


def _devices(root: str) -> None:
    for name in DEVICES:
        if os.path.exists(f"/dev/{name}"):
            with open(f"{root}/dev/{name}", "w", encoding="ascii"):
                pass
            linux.bind(f"/dev/{name}", f"{root}/dev/{name}", readonly=False)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.symlink(f"/proc/self/fd/{number}", f"{root}/dev/{name}")
    os.symlink("/proc/self/fd", f"{root}/dev/fd")
    os.mkdir(f"{root}/dev/shm", 0o1777)


def _mount(root: str, source: str, target: str, readonly: bool) -> None:
    inside = _place(root, target if os.path.isdir(source) else os.path.dirname(target))
    if not os.path.isdir(source):
        inside = f"{inside}/{os.path.basename(target)}"
        if os.path.islink(inside):
            os.unlink(inside)
        with open(inside, "a", encoding="ascii"):
            pass
    linux.bind(source, inside, readonly)


def _place(root: str, path: str) -> str:
    """Make the directory `path` under the root, and return where it is on the host."""
    here = root
    for part in [part for part in path.split("/") if part]:
        if part == "..":
            raise OSError(22, f"mount path {path} leaves the root")
        following = f"{here}/{part}"
        if os.path.islink(following):
            target = os.readlink(following)
            following = root + (target if target.startswith("/") else os.path.normpath(os.path.join(here[len(root):] or "/", target)))
        if not os.path.isdir(following):
            try:
                os.mkdir(following, 0o755)
            except OSError:
                _open_up(root, here)
                here = f"{root}{here[len(root):].removeprefix(HOST)}"
                following = f"{here}/{part}"
                os.mkdir(following, 0o755)
        here = following
    return here


def _open_up(root: str, shown: str) -> None:
    """Replace a read-only directory of the host by a directory of links to its entries (its parents first)."""
    path = shown[len(root):].removeprefix(HOST)
    parent = os.path.dirname(path)
    own = root + path
    if parent == "/":
        hidden = f"{root}{HOST}{path}"
        os.makedirs(hidden, exist_ok=True)
        linux.bind(path, hidden, readonly=True)
        linux.umount(own)
    else:
        if not os.path.islink(own):
            _open_up(root, root + parent)
        os.unlink(own)
        os.mkdir(own, 0o755)
    for name in os.listdir(f"{root}{HOST}{path}"):
        os.symlink(f"{HOST}{path}/{name}", f"{own}/{name}")
