"""`pitstop up`: start everything here, say where it is, and stay until told to stop."""

from __future__ import annotations

from pathlib import Path

import click

from pitstop_cli.console import say


@click.command("up")
@click.option("--dir", "folder", type=click.Path(path_type=Path, file_okay=False),
              help="Where state and credentials are kept.  [default: ~/.local/state/pitstop]")  # fmt: skip
@click.option("--nats-port", type=click.IntRange(1, 65535), help="Port of NATS.  [default: a free one, kept]")
@click.option("--ssh-port", type=click.IntRange(1, 65535), help="Port of SSH.  [default: a free one, kept]")
@click.option("--slots", type=click.IntRange(1, 1000), default=4, show_default=True, help="Jobs at once.")
@click.option("--org-slots", type=click.IntRange(1, 1000), help="Jobs at once of one org.  [default: as --slots]")
@click.option("--sandbox", type=click.Choice(["auto", "namespaces", "docker"]), default="auto", show_default=True,
              help="What jobs run in; auto: docker where it works and has an image, else namespaces.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help='One line when ready: {"nats": …, "ssh": …, "metrics": …}.')
def command(
    folder: Path | None, nats_port: int | None, ssh_port: int | None, slots: int, org_slots: int | None, sandbox: str,
    as_json: bool,
) -> int:  # fmt: skip
    """Start the whole system on this machine: a NATS server and the four services.

    State and credentials stay in the folder and are used again next time. Ctrl-C ends running jobs and stops
    everything; a second Ctrl-C stops at once.
    """
    import asyncio

    from pitstop_cli.local.settings import Options
    from pitstop_cli.local.up import up
    from pitstop_cli.paths import state_dir

    options = Options(
        dir=(folder or state_dir()).expanduser().absolute(), nats_port=nats_port, ssh_port=ssh_port, slots=slots,
        org_slots=org_slots or 0, sandbox=sandbox,
    )  # fmt: skip
    return asyncio.run(up(options, as_json=as_json, say=say))
