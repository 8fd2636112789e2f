"""`batchops unlock ID`: break a lease whose holder is gone."""

from __future__ import annotations

import click

from batchops.cli.holding import finish
from batchops.cli.options import Invocation, shared_options
from batchops.cli.reading import state_path


@click.command("unlock")
@click.argument("lease_id", metavar="ID")
@shared_options(json=True)
def command(invocation: Invocation, lease_id: str) -> int:
    """Break the lease ID that is on record, when its holder is gone. Refused while its process lives.

    A killed process frees the state by itself: the next command just goes on. This is for a record that looks held.
    """
    from batchops.store.lease import unlock

    who, kept = unlock(state_path(invocation), lease_id)
    lines = [
        f"The lease of {who.holder} on {who.host}, process {who.pid}, taken {who.taken_at:%Y-%m-%d %H:%M:%S} UTC, is"
        " broken. Should that process come back, it can write nothing more.",
        f"Backup: {kept}",
    ]
    document = {"lease_id": lease_id, "holder": who.holder, "host": who.host, "pid": who.pid, "backup": str(kept)}
    return finish(invocation, document, lines)
