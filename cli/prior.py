"""`fit-cli prior`: fit pose priors and look at them."""

from __future__ import annotations

from pathlib import Path

import click

from .options import ANY_PATH, Choice, output_option, seed_option


@click.group()
def prior() -> None:
    """Fit and look at pose priors."""


@prior.command()
@click.argument("mocap", type=ANY_PATH)
@output_option("File to write.", file=True)
@click.option("--components", default=8, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--split",
    default="train",
    show_default=True,
    type=Choice(["train", "validation", "test", "all"]),
    help="Subjects to fit to, by the bundled split file.",
)
@seed_option("Of the first guesses.")
def fit(mocap: Path, output: Path, components: int, split: str, seed: int) -> None:
    """Fit a max-mixture of Gaussians to the poses in MOCAP (.npz) and write it."""
    try:
        import sklearn  # noqa: F401
    except ImportError:
        raise click.ClickException(
            "fitting a prior needs scikit-learn; pip install 'bodyloop[prior]'"
        ) from None
    from priors.gmm import save_pose_prior
    from priors.gmm_fitting import fit_mixture
    from priors.mocap import load_mocap

    poses = load_mocap(mocap)
    poses = poses if split == "all" else poses.of_split(split)
    save_pose_prior(output, *fit_mixture(poses, num_components=components, seed=seed))
    click.echo(f"{components} components from {len(poses)} poses -> {output}")


@prior.command()
@click.argument("file", type=ANY_PATH, required=False)
@click.option("--mocap", type=ANY_PATH, help="Poses to score (.npz).")
def info(file: Path | None, mocap: Path | None) -> None:
    """Say what is in the pose prior FILE, or in the bundled one."""
    import torch

    from priors.gmm import load_pose_prior
    from priors.mocap import load_mocap

    mixture = load_pose_prior(file)
    click.echo(f"components {len(mixture.means)}")
    click.echo("weights    " + " ".join(f"{w:.3f}" for w in mixture.log_weights.exp().tolist()))
    if mocap is not None:
        poses = load_mocap(mocap)
        for split in ("train", "validation", "test"):
            rotvec = torch.as_tensor(poses.of_split(split).rotvec[:, 1:]).float().flatten(1)
            click.echo(
                f"{split:10} {len(rotvec)} poses, mean cost {mixture(rotvec).mean():.1f} nats"
            )
