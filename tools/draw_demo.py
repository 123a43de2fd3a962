"""Put the fits of `make demo` into one picture for the README.

python tools/draw_demo.py demo -o docs/pictures/demo.jpg
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from fitting.images import read_image, write_image
from fitting.pictures import person_files
from fitting.table import read_fits


@click.command()
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path))
def main(run: Path, output: Path) -> None:
    """Photograph, fit and side view of the first four people of a run, two in a row."""
    people = []
    for row in range(min(4, len(read_fits(run)))):
        files = person_files(row)
        squares = [read_image(run / name) for name in (files.photo, files.overlay, files.side)]
        people.append(np.concatenate(squares, axis=1))
    rows = [np.concatenate(people[i : i + 2], axis=1) for i in range(0, len(people) - 1, 2)]
    write_image(output, np.concatenate(rows)[::2, ::2])


if __name__ == "__main__":
    main()
