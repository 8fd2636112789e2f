"""`serve`: the embedded Files+Batches API on its own, inside a project or not."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from batchops.cli.options import Invocation, shared_options
from batchops.diagnostics import BatchopsError, ExitCode, UsageProblem, error
from batchops.profiles import PROFILES
from batchops.settings.model import is_web_address
from batchops.units import parse_count, parse_size

if TYPE_CHECKING:
    from batchops.server.options import ServerOptions


def _url(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not is_web_address(value):
        raise click.BadParameter(f"{value!r} is no address, such as https://api.example.com/v1.", ctx, parameter)
    return value


def _host(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    """An empty one, such as of a variable that is not set, would be every address of the machine."""
    if not value.strip():
        raise click.BadParameter("it is empty; write the address to listen on, such as 127.0.0.1.", ctx, parameter)
    return value


@click.command("serve")
@click.option("--host", default="127.0.0.1", show_default=True, callback=_host, help="The address to listen on.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0 picks a free one.")
@click.option("--data", "data_dir", type=click.Path(path_type=Path), help="Where files and batches are kept.")
@click.option("--answers", default="simulated", show_default=True, help="simulated, or module:function.")
@click.option(
    "--upstream", metavar="URL", callback=_url, help="Forward each line to this real-time endpoint (https://…/v1)."
)
@click.option("--upstream-key", metavar="env:NAME", help="The endpoint's key, by reference.")
@click.option("--upstream-concurrency", default=8, show_default=True, type=click.IntRange(1, 256))
@click.option(
    "--profile", default="openai", show_default=True, type=click.Choice(list(PROFILES)), help="The service to be like."
)
@click.option("--faults", type=click.Path(path_type=Path), help="A fault plan (TOML or JSON).")
@click.option("--seed", default=0, show_default=True, type=int, help="Seed of simulated answers and of dice.")
@click.option("--key", "keys", multiple=True, metavar="env:NAME", help="A bearer key to ask for; repeatable.")
@click.option("--webhook", metavar="URL", callback=_url, help="Where to send batch.completed and its kin.")
@click.option("--webhook-secret", metavar="env:NAME", help="What signs them: base64, as whsec_….")
@click.option(
    "--enqueued-tokens", multiple=True, metavar="MODEL=COUNT", help="Most prompt tokens waiting; * is any model."
)
@click.option("--rate-limits", is_flag=True, help="429 beyond the service's uploads a minute and batches an hour.")
@click.option("--max-storage", metavar="SIZE", help="Most that the files of a key may take, such as 20GB.")
@click.option("--model", "models", multiple=True, metavar="NAME", help="A model it knows; repeatable. Any if none.")
@shared_options()
def command(
    invocation: Invocation,
    *,
    host: str,
    port: int,
    data_dir: Path | None,
    profile: str,
    faults: Path | None,
    upstream_key: str | None,
    keys: tuple[str, ...],
    enqueued_tokens: tuple[str, ...],
    models: tuple[str, ...],
    answers: str,
    upstream: str | None,
    upstream_concurrency: int,
    seed: int,
    webhook: str | None,
    webhook_secret: str | None,
    rate_limits: bool,
    max_storage: str | None,
) -> ExitCode:
    """The embedded Files+Batches API: simulated answers, a Python function, or a real-time endpoint behind it."""
    from batchops.server.options import Limits, ServerOptions

    if (webhook is None) != (webhook_secret is None):
        detail = "--webhook and --webhook-secret come together: a webhook is always signed."
        raise UsageProblem(error("usage", "Usage error.", detail))
    options = ServerOptions(
        seed=seed,
        answers=answers,
        upstream=upstream,
        upstream_key=_secret(upstream_key) if upstream_key else None,
        upstream_concurrency=upstream_concurrency,
        keys=tuple(_secret(key) for key in keys),
        webhook_url=webhook,
        webhook_secret=_secret(webhook_secret) if webhook_secret else None,
        faults=str(faults) if faults else None,
        enqueued_tokens=dict(_limit(written) for written in enqueued_tokens),
        models=_models(models),
        profile=profile,
        rate_limits=rate_limits,
        limits=Limits() if max_storage is None else Limits(storage_bytes=_size(max_storage)),
    )
    return _serve(invocation, data_dir or _default_data(invocation), options, host, port)


def _models(names: tuple[str, ...]) -> frozenset[str]:
    """The names of --model; an empty one, such as of a variable that is not set, would refuse every other."""
    if not all(name.strip() for name in names):
        raise UsageProblem(error("usage", "Usage error.", "--model is empty; write the name of a model."))
    return frozenset(names)


def _serve(invocation: Invocation, data_dir: Path, options: ServerOptions, host: str, port: int) -> ExitCode:
    from filelock import Timeout

    from batchops.server.embedded import serve
    from batchops.server.options import LOOPBACK

    ended = threading.Event()
    code = ExitCode.DONE

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal code
        code = ExitCode.INTERRUPTED if number == signal.SIGINT else ExitCode.DONE
        ended.set()

    _make_folder(data_dir)
    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with serve(data_dir, options=options, host=host, port=port) as server:
            invocation.note(f"Serving the Files+Batches API at {server.url}")
            if host not in LOOPBACK and not options.keys:
                invocation.note("Whoever can reach this address can use it. Ask for a key with --key env:NAME.")
            while not ended.wait(3600):
                pass
    except Timeout as problem:
        detail = f"Another process serves {data_dir}. Use its address, or name another folder with --data."
        raise BatchopsError(error("data_dir_in_use", "Data folder is in use.", detail)) from problem
    except OSError as problem:
        detail = f"{host}:{port} cannot be listened on: {problem.strerror}. Choose another with --port."
        raise BatchopsError(error("address_unavailable", "Address is unavailable.", detail)) from problem
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        detail = f"{folder}: {problem.strerror}. Name another folder with --data."
        raise BatchopsError(error("data_dir_unwritable", "Data folder cannot be made.", detail)) from problem


def _default_data(invocation: Invocation) -> Path:
    """`state/serve` of the project, or of the folder the command was started in."""
    try:
        root = invocation.root
    except BatchopsError:
        root = invocation.directory
    return root / "state" / "serve"


def _secret(reference: str) -> str:
    """The value of `env:NAME`. Keys are never written on a command line, where other users can read them."""
    scheme, _, name = reference.partition(":")
    if scheme != "env" or not name:
        detail = "A command line can be read by other users. Write env:NAME: the key is read from that variable."
        raise UsageProblem(error("literal_secret", "Literal secret.", detail))
    if not (value := os.environ.get(name)):
        raise UsageProblem(error("unset_variable", "Environment variable not set.", f"{name} is to hold a key."))
    return value


def _size(written: str) -> int:
    """Bytes of --max-storage."""
    return _above_zero(
        parse_size, written, f'"{written}" is not accepted for --max-storage; write a size, such as 20GB.'
    )


def _limit(written: str) -> tuple[str, int]:
    model, _, count = written.rpartition("=")
    detail = f'"{written}" is not accepted for --enqueued-tokens; write MODEL=COUNT, such as gpt-5-mini=2M.'
    return model or "*", _above_zero(parse_count, count, detail)


def _above_zero(parse: Callable[[str], int], written: str, detail: str) -> int:
    """A limit. One of nothing lets nothing through, which nobody means: often it is a variable that was not set."""
    try:
        limit = parse(written)
    except ValueError as problem:
        raise UsageProblem(error("usage", "Usage error.", detail)) from problem
    if limit < 1:
        raise UsageProblem(error("usage", "Usage error.", f"{detail} It must be above 0."))
    return limit
