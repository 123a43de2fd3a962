"""`fit-cli fit` in shards: its options, Ctrl-C, and how to go on."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .interrupt import Interrupt
from .options import Choice, all_of, resume_option
from .progress import StageBars

if TYPE_CHECKING:
    from fitting.run_config import RunConfig
    from fitting.shard_run import ShardConfig, ShardsSummary

_NOTICE = "fit-cli: finishing the shards begun; Ctrl-C once more ends at once"


def _parse_share(
    context: click.Context, option: click.Parameter, text: str | None
) -> tuple[int, int] | None:
    """K and N of "K/N"."""
    if text is None:
        return None
    k, slash, n = text.partition("/")
    if slash and k.isdecimal() and n.isdecimal() and 1 <= int(k) <= int(n):
        return int(k), int(n)
    raise click.BadParameter(f"{text!r} is not K/N with K from 1 to N, such as 3/16")


_OPTIONS = (
    click.option(
        "--shard-size",
        type=click.IntRange(min=1),
        metavar="ROWS",
        help="Fit so many people at a time, into a file of their own: such a run may be killed and "
        "gone on with (docs/scale.md).",
    ),
    resume_option("Go on with the run in shards in the folder."),
    click.option(
        "--shards",
        metavar="K/N",
        callback=_parse_share,
        help="Fit every N-th shard only, from the K-th on; other processes fit the rest.",
    ),
    click.option(
        "--backend",
        default="loky",
        show_default=True,
        type=Choice(["loky", "dask", "ray"]),
        help="What fits shards: processes on this machine, or a cluster of Dask or Ray.",
    ),
    click.option("--scheduler", metavar="ADDRESS", help="Of the cluster."),
)

# Decorates a command with the options that `take_shards` takes.
shard_options = all_of(_OPTIONS)


def take_shards(options: dict[str, Any], lifter: Path | None) -> ShardConfig | None:
    """How to divide the run, out of a command's options; none if it is not to be divided.

    Args:
        options: of the command; those of `shard_options` are taken out.
        lifter: see `fitting.shard_run.ShardConfig`.
    """
    size, resume, share, backend, scheduler = (
        options.pop(name) for name in ("shard_size", "resume", "shards", "backend", "scheduler")
    )
    if size is None and not resume and share is None:
        if (backend, scheduler) != ("loky", None):
            raise click.UsageError("--backend and --scheduler are for shards; add --shard-size")
        return None
    from fitting.shard_run import ShardConfig

    return ShardConfig(
        size=size,
        resume=resume,
        share=share or (1, 1),
        lifter=lifter,
        backend=backend,
        scheduler=scheduler,
    )


def fit_shards(
    config: RunConfig, shards: ShardConfig, *, quiet: bool, **makers: Any
) -> ShardsSummary:
    """Run, and say how to go on where shards are missing; Ctrl-C ends the program there.

    Args:
        config: what to do.
        shards: how to divide it.
        quiet: show no progress.
        makers: of estimates, see `fitting.run.run`.
    """
    from fitting.shard_run import run_shards

    with Interrupt(_NOTICE) as interrupt, StageBars(hidden=quiet) as bars:
        summary = run_shards(config, shards, bars.update, stop=interrupt.came, **makers)
    if summary.record is None:
        click.echo(f"{summary.done} of {summary.total} shards done -> {config.output}")
        click.echo(f"go on with: {_command_to_resume()}")
    if summary.interrupted:
        raise SystemExit(interrupt.exit_code)
    more = summary.num_problems - len(summary.problems)
    if more:
        click.echo(
            f"fit-cli: {more} problems besides these; {config.output}/fits/_part-*.json name all",
            err=True,
        )
    return summary


def _command_to_resume() -> str:
    """The command that was given, with --resume."""
    context, words = click.get_current_context(), ["fit-cli", "fit"]
    for param in context.command.params:
        name = param.name or ""
        source = context.get_parameter_source(name)
        if source is click.core.ParameterSource.COMMANDLINE and name not in {"resume", "overwrite"}:
            words += _as_given(param, context.params[name])
    return shlex.join([*words, "--resume"])


def _as_given(param: click.Parameter, value: Any) -> list[str]:
    """An argument or an option as words of a command."""
    if isinstance(param, click.Argument):
        return [str(value)]
    if isinstance(param, click.Option) and param.is_flag:
        return [param.opts[0] if value else param.secondary_opts[0]]
    return [param.opts[-1], "/".join(map(str, value)) if isinstance(value, tuple) else str(value)]
