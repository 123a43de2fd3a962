"""`fit-cli body`: look at body files."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .options import ANY_PATH, output_option, seed_option


@click.group()
def body() -> None:
    """Look at body files."""


@body.command()
@click.argument("file", type=ANY_PATH, required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(file: Path | None, as_json: bool) -> None:
    """Say what is in the body FILE (SMPL-format .npz or .pkl), or in the bundled body."""
    from fitting.body_files import BUNDLED_BODY, load_body_arrays

    arrays = load_body_arrays(file or BUNDLED_BODY)
    bundled = arrays.path.resolve() == BUNDLED_BODY.resolve()
    facts = {
        "path": str(arrays.path),
        "sha256": arrays.sha256,
        "vertices": len(arrays.v_template),
        "faces": len(arrays.faces),
        "betas": arrays.shapedirs.shape[2],
        "landmarks": len(arrays.landmarks),
        "licence": "CC0-1.0" if bundled else "unknown: see the terms you received it under",
    }
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    else:
        for name, value in facts.items():
            click.echo(f"{name:10} {value}")


@body.command()
@output_option("File to write.", file=True)
@seed_option("Of the sampled people and poses.")
def build(output: Path, seed: int) -> None:
    """Build the bundled body again (about a minute; needs the extra `tools` and a checkout)."""
    import subprocess
    import sys

    script = Path(__file__).resolve().parents[1] / "tools" / "build_body.py"
    if not script.is_file():
        raise click.UsageError(
            "the body is built from a checkout of bodyloop's source, which this installation is "
            "not; the finished body is bundled: see fit-cli body info"
        )
    command = [sys.executable, str(script), "-o", str(output), "--seed", str(seed)]
    raise SystemExit(subprocess.run(command, check=False).returncode)
