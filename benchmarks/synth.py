"""How fast `fit-cli synth` draws, and what it spends its time on.

    python benchmarks/synth.py [--pictures 1024] [--turns 3] [--jobs 1 --jobs 2]

Crops of 224 px with everything that belongs to them, written to a temporary folder. Rates are by
the clock on the wall, medians of some runs after one that starts the processes; what starting takes
is told apart. Processor time by stage is that of one process and hardly depends on what else the
machine does.
"""

from __future__ import annotations

import contextlib
import functools
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import click
from record import RESULTS, describe_run

from fitting.body import Body
from fitting.files import write_json
from regressor.synthetic import drawing, rendered_batches, rendered_set, rendering
from regressor.synthetic.people import PeopleStream
from regressor.synthetic.rendered_batches import BatchFolder
from regressor.synthetic.rendered_set import SetConfig, write_rendered_set
from regressor.synthetic.rendering import BATCH, PictureConfig, PictureStream

# What belongs to a stage: functions by where they are looked up. None of them calls another one,
# but for the last.
STAGES: dict[str, tuple[tuple[Any, str], ...]] = {
    "bodies": ((PeopleStream, "people"), (Body, "pose"), (PictureStream, "_gather")),
    "clothes": ((rendering, "draw_outfit"), (PictureStream, "_dress")),
    "surfaces": ((rendering, "draw_surfaces"),),
    "surroundings": ((PictureStream, "_draw_behind"),),
    "lens": ((rendering, "_develop"),),
    "truth": (
        (PictureStream, "_with_truth"),
        (rendered_batches, "_plain_row"),
        (BatchFolder, "rows"),
        (rendered_set, "_write_coco"),
        (rendered_set, "_write_truth"),
    ),
    "files of pictures": ((rendered_batches, "write_image"),),
    "files of masks": ((rendered_batches, "_write_mask"),),
    "of surfaces: triangles": ((drawing, "render_face_ids"),),
}


def write_set(count: int, jobs: int, size: int) -> dict[str, Any]:
    """run.json of so many pictures."""
    with tempfile.TemporaryDirectory() as folder:
        pictures = PictureConfig(size=(size, size))
        return write_rendered_set(folder, SetConfig(count=count, pictures=pictures, jobs=jobs))


def measure_rate(count: int, jobs: int, size: int, turns: int) -> dict[str, float]:
    """Pictures per second by the wall clock, and the seconds that starting the processes takes."""
    began = time.perf_counter()
    write_set(BATCH * jobs, jobs, size)
    first = time.perf_counter() - began
    rate = statistics.median(
        write_set(count, jobs, size)["pictures_per_second"] for _ in range(turns)
    )
    return {
        "pictures_per_second": round(rate, 1),
        "seconds_to_start": round(max(0.0, first - BATCH * jobs / rate), 2),
    }


@contextlib.contextmanager
def timed_stages() -> Iterator[dict[str, float]]:
    """Processor seconds by stage, spent in this process from here on."""
    seconds: dict[str, float] = defaultdict(float)

    def timed(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*args: Any, **options: Any) -> Any:
            began = time.process_time()
            try:
                return function(*args, **options)
            finally:
                seconds[stage] += time.process_time() - began

        return run

    with contextlib.ExitStack() as stack:
        for stage, places in STAGES.items():
            for owner, name in places:
                patch = mock.patch.object(owner, name, timed(stage, getattr(owner, name)))
                stack.enter_context(patch)
        yield seconds


def measure_stages(count: int, size: int) -> dict[str, Any]:
    """Processor milliseconds for a picture, in all and by stage."""
    write_set(BATCH, 1, size)  # to warm up
    with timed_stages() as seconds:
        began = time.process_time()
        write_set(count, 1, size)
        total = time.process_time() - began
    rest = total - sum(value for stage, value in seconds.items() if not stage.startswith("of "))
    stages = {**{stage: seconds[stage] for stage in STAGES}, "rest": rest}
    return {
        "total": round(1e3 * total / count, 2),
        "stages": {stage: round(1e3 * value / count, 2) for stage, value in stages.items()},
    }


@click.command()
@click.option("--pictures", default=1024, show_default=True, help="Of each run.")
@click.option("--turns", default=3, show_default=True, help="Runs for each number of processes.")
@click.option("--jobs", multiple=True, default=(1, 2), show_default=True, help="Processes.")
@click.option("--size", default=224, show_default=True, help="Pixels across the crops.")
@click.option("-o", "--output", default=RESULTS / "synth.json", type=click.Path(path_type=Path))
def main(pictures: int, turns: int, jobs: tuple[int, ...], size: int, output: Path) -> None:
    spent = measure_stages(pictures, size)
    click.echo(f"{spent['total']} ms of processor time for a picture: {spent['stages']}")
    rates = {}
    for number in jobs:
        rates[str(number)] = measure_rate(pictures, number, size, turns)
        click.echo(f"jobs {number}: {rates[str(number)]}")
    options = "".join(f" --jobs {number}" for number in jobs)
    record = {
        **describe_run(
            f"python benchmarks/synth.py --pictures {pictures} --turns {turns}{options} "
            f"--size {size}"
        ),
        "pictures": pictures,
        "size": size,
        "processor_ms_per_picture": spent,
        "jobs": rates,
    }
    write_json(output, record)


if __name__ == "__main__":
    main()
