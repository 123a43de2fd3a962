"""`fit-cli completion`: scripts that complete its commands in a shell."""

from __future__ import annotations

import click

from .options import Choice

_SHELLS = ("bash", "zsh", "fish")
_INSTALL = """\b
bash, in ~/.bashrc:  eval "$(fit-cli completion bash)"
zsh, in ~/.zshrc:    eval "$(fit-cli completion zsh)"
fish, once:
  fit-cli completion fish > ~/.config/fish/completions/fit-cli.fish"""


@click.command(epilog=_INSTALL)
@click.argument("shell", type=Choice(_SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that completes commands, options and their values in SHELL."""
    from click.shell_completion import get_completion_class

    complete = get_completion_class(shell)
    assert complete is not None  # these shells are click's own
    root = context.find_root().command
    click.echo(complete(root, {}, "fit-cli", "_FIT_CLI_COMPLETE").source())
