"""`meshtls lab`: up, down, status, kubeconfig, demo. Several labs live side by side by name."""
import click

NAME = click.option("--name", default="default", show_default=True, help="Which lab.")

MODE = click.option("--mode", default="auto", show_default=True, type=click.Choice(["auto", "namespaces", "loopback"]),
                    help="Pods in network namespaces or, with less fidelity, on loopback; auto: loopback where namespaces are refused.")


@click.group()
def lab() -> None:
    """A mesh on this machine: real Envoys in network namespaces, no Kubernetes and no root needed."""


@lab.command()
@NAME
@click.option("-f", "--filename", "files", multiple=True, help="Manifests to apply: a file or a directory; repeatable.")
@click.option("--wait", is_flag=True, help="Return when everything declared is ready.")
@click.option("--timeout", default="60s", show_default=True, help="How long to wait.")
@click.option("--port", default=0, type=click.IntRange(0, 65535), help="The API's port on 127.0.0.1; by default a free one.")
@click.option("--nodes", default=1, show_default=True, type=click.IntRange(1, 20), help="How many nodes: lab-1, lab-2...")
@MODE
def up(name: str, files: tuple[str, ...], wait: bool, timeout: str, port: int, nodes: int, mode: str) -> None:
    """Start a lab in the background."""
    from meshtls.cli.options import duration
    from meshtls.errors import InputError
    from meshtls.lab import launch, manifests, state

    try:
        limit_s = duration(timeout)
    except ValueError as error:
        raise InputError(str(error)) from error
    objects = manifests.read(files)
    found, _ = launch.launch(name, port=port, nodes=nodes, mode=mode.replace("auto", ""))
    path = state.directory(name) / "kubeconfig"
    click.echo(f"lab {name!r} is up at {found.server}", err=True)
    if found.mode == state.LOOPBACK:
        click.echo(f"loopback mode{', for namespaces are refused here' if mode == 'auto' else ''}; what it lacks (docs/lab.md):", err=True)
        for line in launch.LOST:
            click.echo(f"  - {line}", err=True)
    if objects or wait:
        _fill(name, str(path), objects, limit_s if wait else None)
    click.echo(f"export KUBECONFIG={path}")


def _fill(name: str, kubeconfig: str, objects: list[dict[str, object]], wait_s: float | None) -> None:
    """Apply and wait; a lab that does not take its manifests is taken down again."""
    from meshtls.cluster.client import Client
    from meshtls.errors import InputError, MeshtlsError
    from meshtls.lab import manifests, state
    from meshtls.report.text import plural

    try:
        with Client.connect(kubeconfig=kubeconfig) as client:
            count = manifests.apply(client, objects)
            click.echo(f"{plural(count, 'object')} applied", err=True)
            if wait_s is not None:
                manifests.wait(client, wait_s)
                click.echo(f"{plural(len(client.list('Pod')), 'pod')} ready", err=True)
    except MeshtlsError as error:
        if isinstance(error, InputError) or getattr(error, "status", None):
            state.clear(name)
        raise
    except KeyboardInterrupt:
        click.echo(f"lab {name!r} stays up, perhaps without all of its objects (meshtls lab down --name {name})", err=True)
        raise


@lab.command(short_help="End a lab and remove all that is left of it.")
@NAME
@click.option("-a", "--all", "all_", is_flag=True, help="Every lab of this user.")
def down(name: str, all_: bool) -> None:
    """End a lab and remove all that is left of it, also after a crash or kill -9."""
    from meshtls.lab import state

    for each in list(state.names()) if all_ else [name]:
        click.echo(f"lab {each!r} is down" if state.clear(each) else f"lab {each!r} is not up", err=True)


@lab.command()
@NAME
def status(name: str) -> None:
    """Whether a lab is up, and what runs in it. Exit code 3 if it is not up."""
    from meshtls.cluster.client import Client
    from meshtls.errors import LabError
    from meshtls.lab import launch, manifests, state
    from meshtls.report.text import plural

    found = state.load(name)
    if not state.alive(found):
        left = state.directory(name).exists()
        raise LabError(f"lab {name!r} {'has ended and left files' if left else 'is not up'}",
                       f"meshtls lab {'down' if left else 'up'} --name {name}")
    assert found is not None
    with Client.connect(kubeconfig=str(state.directory(name) / "kubeconfig"), timeout_s=5) as client:
        pods, waiting = client.list("Pod"), manifests.unready(client)
    click.echo(f"lab {name!r}: {found.server}, process {found.pid}, {found.mode}; {plural(len(pods), 'pod')}, {len(waiting)} not ready")
    for line in waiting:
        click.echo(f"  {line}")
    if found.mode == state.LOOPBACK:
        click.echo("  loopback mode lacks: " + "; ".join(launch.LOST))


@lab.command()
@NAME
def kubeconfig(name: str) -> None:
    """Print the path of a lab's kubeconfig."""
    from meshtls.errors import LabError
    from meshtls.lab import state

    if not state.alive(state.load(name)):
        raise LabError(f"lab {name!r} is not up", f"meshtls lab up --name {name}")
    click.echo(state.directory(name) / "kubeconfig")


@lab.command(short_help="The whole story, on a lab of its own.")
@click.option("--examples", default="examples/shop", show_default=True, help="The manifests of the story.")
@click.option("--output", default="report.html", show_default=True, help="Where the page goes.")
@MODE
def demo(examples: str, output: str, mode: str) -> None:
    """The whole story on a lab of its own: audit, probe, migrate, refuse, roll back."""
    from meshtls.cli.demo import run

    run(examples, output, mode)
