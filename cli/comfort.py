"""How all commands end: closing summaries for people, JSON for programs, and exit codes.

A command's function returns its `Outcome`; `concluded` makes a command of it.
"""

from __future__ import annotations

import functools
import json
import shutil
import signal
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any

import click

BAD_USE, INTERRUPTED = 2, 128 + signal.SIGINT
EXIT_CODES = (
    "Exit codes: 0 done; 1 done, but what is listed was left out; 2 bad use or input; 130 or 143 "
    "stopped by Ctrl-C or a kill, and what was finished stands."
)
EXPECTED = (ValueError, OSError, ImportError, MemoryError, click.ClickException)
_MOST_NAMED = 20  # problems of a kind that are printed; the JSON and run.json hold all
_MOST_REASONS = 3  # of these that the summary counts
_WIDEST = 100  # columns of the summary


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a command came to.

    Attributes:
        headline: one line on what was done and where it is; empty if that was said already.
        facts: label and text of each line of the closing table.
        record: what `--json` prints besides the command, the exit code and the problems; none means
            that it prints nothing, for one of several processes speaks for all.
        problems: rows and pictures left out, one sentence each as text.
        named_in: file that names all problems; none means that no file does.
        last: a line after the summary, such as how to go on; empty if there is none.
        exit_code: none means 1 if there are problems, and 0 otherwise.
    """

    headline: str
    facts: Mapping[str, str] = field(default_factory=dict)
    record: Mapping[str, Any] | None = field(default_factory=dict)
    problems: Sequence[Any] = ()
    named_in: str | None = None
    last: str = ""
    exit_code: int | None = None

    @property
    def code(self) -> int:
        """The exit code."""
        return int(bool(self.problems)) if self.exit_code is None else self.exit_code


def concluded(work: Callable[..., Outcome]) -> Callable[..., None]:
    """Turn a function that returns an outcome into that of a command with `--quiet` and `--json`.

    The function is given `quiet` among its options: whether to show no progress.
    """

    @click.option("--quiet", is_flag=True, help="No progress, and one line instead of a summary.")
    @click.option(
        "--json",
        "as_json",
        is_flag=True,
        help="Print one JSON object on stdout; all else goes to stderr.",
    )
    @functools.wraps(work)
    def command(*, quiet: bool, as_json: bool, **options: Any) -> None:
        if as_json:
            outcome = _tell_program(functools.partial(work, quiet=quiet, **options))
        else:
            outcome = work(quiet=quiet, **options)
            say_problems(outcome)
            if outcome.headline:
                click.echo(outcome.headline if quiet else summary_of(outcome))
            if outcome.last:
                click.echo(outcome.last)
        if outcome.code:
            raise SystemExit(outcome.code)

    return command


def _tell_program(work: Callable[[], Outcome]) -> Outcome:
    """Do the work, and print one JSON object whatever becomes of it."""
    stdout = sys.stdout
    try:
        # Not even a library that prints may get between a program and its JSON.
        with redirect_stdout(sys.stderr):
            outcome = work()
            say_problems(outcome)
    except (*EXPECTED, SystemExit, KeyboardInterrupt, click.Abort) as error:
        code = _code_of(error)
        _print_json({"exit_code": code, "error": sentence_of(error)}, stdout)
        raise
    problems = [_plain(problem) for problem in outcome.problems]
    if outcome.record is not None:
        _print_json({"exit_code": outcome.code, **outcome.record, "problems": problems}, stdout)
    return outcome


def _print_json(record: Mapping[str, Any], stream: Any) -> None:
    path = click.get_current_context().command_path.split()
    record = {"command": " ".join(path[1:]), **record}
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False, default=str)
    click.echo(text, file=stream)


def _plain(problem: Any) -> dict[str, Any]:
    if is_dataclass(problem) and not isinstance(problem, type):
        return asdict(problem)
    return {"file": None, "row": None, "reason": str(problem)}


def say_problems(outcome: Outcome) -> None:
    """Name what was left out, on stderr."""
    say_some(outcome.problems, f", which {outcome.named_in} names" if outcome.named_in else "")


def say_some(things: Sequence[Any], of_others: str = "") -> None:
    """Name the first few on stderr, and say how many others there are; `of_others` goes on."""
    for thing in things[:_MOST_NAMED]:
        click.echo(f"fit-cli: {thing}", err=True)
    more = len(things) - _MOST_NAMED
    if more > 0:
        click.echo(f"fit-cli: and {number(more)} more{of_others}", err=True)


def summary_of(outcome: Outcome) -> str:
    """The headline, and a table of facts that fits the terminal."""
    facts = dict(outcome.facts)
    if outcome.problems:
        facts["left out"] = _count_reasons(outcome.problems)
    wide = max(map(len, facts), default=0) + 4
    lines = [labelled(f"  {label}".ljust(wide), value) for label, value in facts.items()]
    return "\n".join([outcome.headline, *lines])


def labelled(label: str, text: str) -> str:
    """A label and its text, which is wrapped to the terminal beside the label."""
    columns = min(shutil.get_terminal_size().columns, _WIDEST)
    return textwrap.fill(
        text,
        max(columns, len(label) + 20),
        initial_indent=label,
        subsequent_indent=" " * len(label),
        break_long_words=False,  # paths are to be copied
        break_on_hyphens=False,
    )


def _count_reasons(problems: Sequence[Any]) -> str:
    """How many problems there are, and the most frequent reasons if some are shared."""
    reasons = Counter(getattr(problem, "reason", str(problem)) for problem in problems)
    common = [(reason, n) for reason, n in reasons.most_common(_MOST_REASONS) if n > 1]
    said = "; ".join(f"{n} times {reason}" for reason, n in common)
    named = "" if len(problems) <= _MOST_NAMED else f"{_MOST_NAMED} of them "
    return f"{len(problems)}, {named}named above" + (f": {said}" if said else "")


def number(value: float | None, digits: int = 3) -> str:
    """A number for people: so many significant digits, thousands set apart."""
    if value is None:
        return "-"
    # From half below on, `g` would round to one digit more and write 1e+03.
    return f"{value:,.0f}" if abs(value) >= 10**digits - 0.5 else f"{value:.{digits}g}"


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A number and what it is of; `plural` where an s at the end is not enough."""
    return f"{number(count)} {noun if count == 1 else plural or f'{noun}s'}"


def listed(counts: Mapping[str, float]) -> str:
    """`name number` of all that are not 0, with commas."""
    return ", ".join(f"{name} {number(count)}" for name, count in counts.items() if count)


def sentence_of(error: BaseException) -> str | None:
    """What an expected error has to say; none of one that has nothing to say."""
    if isinstance(error, MemoryError):
        return f"{str(error) or 'out of memory'}; give a smaller --batch-size"
    if isinstance(error, click.ClickException):
        return error.format_message()
    return str(error) if isinstance(error, EXPECTED) else None


def _code_of(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else BAD_USE
    return BAD_USE if isinstance(error, EXPECTED) else INTERRUPTED
