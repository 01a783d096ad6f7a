"""`meshtls cleanup`: remove what a killed run left. Only objects that carry our labels and an expiry are touched."""

import datetime
from typing import Any

import click

from meshtls.cli.options import Options, shared


@click.command()
@shared("cluster", "place", "output", "timeout")
@click.option("--run", "run_id", default="", metavar="ID", help="Only what the run with this id left.")
@click.option(
    "--expired-only", is_flag=True, help="Only what has outlived its time, so that no running probe loses anything."
)
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
def cleanup(options: Options, run_id: str, expired_only: bool, dry_run: bool) -> None:
    """Remove what a killed run left in the cluster: probe pods, their Services and ConfigMaps, the policy of a shadow or a rehearsal.

    Journals of migrations are kept: they have no expiry.

    Exit codes: 0 nothing is left, 3 something could not be removed, 124 timeout.
    """
    from meshtls.cli.meshes import connect, exists
    from meshtls.cli.output import NOT_EVALUATED, emit_document, stops
    from meshtls.cluster import owned

    now = datetime.datetime.now(datetime.UTC)
    with stops(options.timeout_s), connect(options) as client:
        for name in options.namespaces:
            exists(client, name)
        places: list[str | None] = [None] if options.all_namespaces else list(options.namespaces) or [client.namespace]
        items = [i for i in owned.find(client, places, now, run_id) if i.expired or not expired_only]
        told: list[dict[str, Any]] = []

        def note(item: owned.Leftover, problem: str) -> None:
            done = "would be removed" if dry_run else "not removed" if problem else "removed"
            told.append(
                {
                    "object": item.ref,
                    "run": item.run,
                    "part": item.part,
                    "expires": item.expires,
                    "result": done,
                    "reason": problem,
                }
            )

        if dry_run:
            for item in items:
                note(item, "")
        else:
            owned.remove(client, items, note)
    document = {"apiVersion": "meshtls.dev/v1", "kind": "CleanupReport", "items": told}
    emit_document(document, options, lambda: _table(told, places))
    if any(entry["reason"] for entry in told):
        raise click.exceptions.Exit(NOT_EVALUATED)


def _table(told: list[dict[str, Any]], places: list[str | None]) -> str:
    if not told:
        where = "the cluster" if places == [None] else ", ".join(str(place) for place in places)
        return f"Nothing of ours is left in {where}.\n"
    lines = [
        f"{e['result']}: {e['object']} (run {e['run']}, expires {e['expires']})"
        + (f": {e['reason']}" if e["reason"] else "")
        for e in told
    ]
    return "\n".join(lines) + "\n"
