"""Make cli/static/three/: the part of three.js that the report of a run shows meshes with.

Needs `npm`, which fetches three.js and the bundler at the versions below. The result is committed;
run this again only for another version or another name in `ENTRY`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import click

THREE = "three@0.187.0"
BUNDLER = "esbuild@0.25.12"
TARGET = Path(__file__).resolve().parents[1] / "cli" / "static" / "three"

ENTRY = """\
export {
  BufferAttribute,
  BufferGeometry,
  Color,
  DirectionalLight,
  HemisphereLight,
  Mesh,
  MeshLambertMaterial,
  PerspectiveCamera,
  Scene,
  Vector3,
  WebGLRenderer,
} from "three";
export { OrbitControls } from "three/examples/jsm/controls/OrbitControls.js";
"""
# A function, so that a page parses the library when it opens but runs it at the first mesh.
BANNER = "function loadThree() {"
FOOTER = "return THREE; }"


@click.command()
def main() -> None:
    """Bundle what the report uses of three.js into cli/static/three/."""
    npm = shutil.which("npm")
    if npm is None:
        raise click.ClickException("npm is not installed; it comes with Node.js")
    with tempfile.TemporaryDirectory() as folder:
        bundle = bundle_three(npm, Path(folder))
        TARGET.mkdir(parents=True, exist_ok=True)
        for name in ("three.js", "LICENSE", "README.md"):
            shutil.copyfile(bundle / name, TARGET / name)
    click.echo(f"{TARGET / 'three.js'}: {(TARGET / 'three.js').stat().st_size:,} bytes")


def bundle_three(npm: str, folder: Path) -> Path:
    """Make the files in an empty folder; returns where they are."""
    packages = folder / "node_modules"
    quiet = ["--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run([npm, "install", *quiet, "--prefix", folder, THREE, BUNDLER], check=True)
    (folder / "entry.js").write_text(ENTRY, encoding="utf-8")
    made = folder / "made"
    made.mkdir()
    options = ["--bundle", "--minify", "--format=iife", "--global-name=THREE", "--charset=ascii"]
    wrap = [f"--banner:js={BANNER}", f"--footer:js={FOOTER}"]
    command = [
        packages / ".bin" / "esbuild",
        "entry.js",
        *options,
        *wrap,
        "--outfile=made/three.js",
    ]
    subprocess.run(command, cwd=folder, check=True)
    shutil.copyfile(packages / "three" / "LICENSE", made / "LICENSE")
    version = json.loads((packages / "three" / "package.json").read_text("utf-8"))["version"]
    (made / "README.md").write_text(describe(version), encoding="utf-8")
    return made


def describe(version: str) -> str:
    """The README beside the bundle."""
    return (
        f"`three.js` is the part of three.js {version} (MIT, see LICENSE) that the report of a\n"
        "run uses, bundled from its npm package by `tools/vendor_three.py`. Not edited by hand.\n"
    )


if __name__ == "__main__":
    main()
