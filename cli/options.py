"""Options that several commands have, each said once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Command = TypeVar("Command", bound=Callable[..., Any])


class Decorator(Protocol):
    """Adds options to a command, which stays of its type."""

    def __call__(self, command: Command, /) -> Command:
        """The same with the options."""


FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
ANY_PATH = click.Path(path_type=Path)


class PathOrUrl(click.Path):
    """A path; of `fit-cli fit` it may be a URL (docs/scale.md)."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, or what stands for the URL."""
        if "://" not in str(value):
            return super().convert(value, param, ctx)
        if ctx is not None and ctx.info_name != "fit":
            self.fail(f"{value}: only fit-cli fit takes URLs; copy it to this machine", param, ctx)
        from fitting.storage import to_location

        return to_location(str(value))


def did_you_mean(word: str, possibilities: Iterable[str], *, cutoff: float = 0.6) -> str:
    """`; did you mean x?`, or nothing if nothing is near."""
    near = difflib.get_close_matches(word.lower(), possibilities, n=1, cutoff=cutoff)
    return f"; did you mean {near[0]}?" if near else ""


class Choice(click.Choice):
    """One of some words; a mistyped one is answered with the nearest."""

    def __init__(self, choices: Sequence[str]) -> None:
        super().__init__(choices)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The word itself."""
        if value not in self.choices:
            words = ", ".join(self.choices)
            hint = did_you_mean(str(value), self.choices, cutoff=0.4)
            self.fail(f"{value!r} is not one of {words}{hint}", param, ctx)
        return str(value)


class KeypointSetName(click.ParamType):
    """The name of a keypoint set."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name, of a set that there is."""
        from fitting.skeleton import keypoint_set

        try:
            return keypoint_set(str(value)).name
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The names that begin so."""
        from click.shell_completion import CompletionItem

        from fitting.skeleton import KEYPOINT_SETS

        return [CompletionItem(name) for name in KEYPOINT_SETS if name.startswith(incomplete)]


class _Device(click.ParamType):
    """`auto`, `cpu`, or a GPU."""

    name = "device"
    _WORDS = ("auto", "cpu", "cuda")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The word itself."""
        if re.fullmatch(r"auto|cpu|cuda(:\d+)?", str(value)) is None:
            words = f"{', '.join(self._WORDS)}, or cuda:1 and so on"
            hint = did_you_mean(str(value), self._WORDS, cutoff=0.4)
            self.fail(f"{value!r} is not one of {words}{hint}", param, ctx)
        return str(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The words that begin so."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(word) for word in self._WORDS if word.startswith(incomplete)]


def all_of(decorators: Sequence[Decorator]) -> Decorator:
    """Several options as one decorator, in the order of the help text."""

    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):  # the last one decorates first
            command = decorator(command)
        return command

    return decorate


def output_option(help: str, *, file: bool = False) -> Decorator:
    """`--output`, a folder or a file."""
    kind = FILE if file else PathOrUrl(path_type=Path, file_okay=False)
    return click.option("-o", "--output", required=True, type=kind, help=help)


def body_option(
    help: str = "SMPL-format body, .npz or .pkl; the bundled one if not given.",
    *,
    name: str = "body",
) -> Decorator:
    """`--body`, a file."""
    return click.option("--body", name, type=ANY_PATH, help=help)


def focal_option() -> Decorator:
    """`--focal`, pixels."""
    return click.option(
        "--focal",
        metavar="PX",
        type=click.FloatRange(min=0, min_open=True),
        help="Focal length of all pictures; their diagonal if not given.",
    )


def device_option() -> Decorator:
    """`--device`."""
    return click.option(
        "--device",
        default="auto",
        show_default=True,
        type=_Device(),
        metavar="auto|cpu|cuda",
        help="What computes; auto: a GPU where there is one.",
    )


def batch_size_option(default: int, help: str) -> Decorator:
    """`--batch-size`."""
    return click.option(
        "--batch-size", default=default, show_default=True, type=click.IntRange(min=1), help=help
    )


def jobs_option(what: str) -> Decorator:
    """`--jobs`, of which -1 means as many as there are cores."""
    return click.option(
        "--jobs",
        default=-1,
        show_default=True,
        type=click.IntRange(min=-1),
        callback=_no_jobs,
        help=f"{what}; -1: cores.",
    )


def _no_jobs(context: click.Context, option: click.Parameter, jobs: int) -> int:
    if jobs == 0:
        raise click.BadParameter("0 is nobody; give 1 or more, or -1 for all cores")
    return jobs


def limit_option(verb: str) -> Decorator:
    """`--limit`, a number of people."""
    return click.option(
        "--limit", type=click.IntRange(min=1), help=f"{verb} the first so many people only."
    )


def seed_option(help: str = "Of all random choices.") -> Decorator:
    """`--seed`."""
    return click.option(
        "--seed", default=0, show_default=True, type=click.IntRange(min=0), help=help
    )


def overlays_option(what: str, default: str | None = None) -> Decorator:
    """`--overlays`: true if not given, or none where the default is said in words."""
    return click.option(
        "--overlays/--no-overlays",
        default=True if default is None else None,
        show_default=True if default is None else default,
        help=f"{what}.",
    )


def report_option(default: str | None = None) -> Decorator:
    """`--report`: true if not given, or none where the default is said in words."""
    return click.option(
        "--report/--no-report",
        default=True if default is None else None,
        show_default=True if default is None else default,
        help="Write report.html.",
    )


def overwrite_option(
    help: str = "Replace an earlier run in the output folder.",
) -> Decorator:
    """`--overwrite`."""
    return click.option("--overwrite", is_flag=True, help=help)


def resume_option(help: str) -> Decorator:
    """`--resume`."""
    return click.option("--resume", is_flag=True, help=help)


def dry_run_option() -> Decorator:
    """`--dry-run`."""
    return click.option(
        "--dry-run", is_flag=True, help="Say what would be read and written, and do nothing."
    )


def check_beginning(*, resume: bool, overwrite: bool) -> None:
    """UsageError if a run is both to go on and to be replaced."""
    if resume and overwrite:
        raise click.UsageError("--resume goes on with a run, --overwrite replaces it; give one")
