"""Sample adults from MakeHuman's phenotypes and find their principal components."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from body_rig import (
    REFLECTION,
    FloatArray,
    IntArray,
    Phenotypes,
    Rig,
    rest_shapes,
    symmetric_points,
)

from fitting.skeleton import joint_index

NUM_BETAS = 10
END_PARTS = ("head", "left_ankle", "right_ankle", "left_foot", "right_foot")
BODY_DENSITY = 985.0  # kg/m^3, lungs half full; only for the body-mass index that is reported


@dataclass(frozen=True, kw_only=True)
class Population:
    """The distribution of people, as (mean, deviation, lowest, highest) of clipped normals.

    `anny`'s phenotypes run from 0 to 1: gender 0 is male and 1 female, age 2/3 is a young and 1 an
    old adult, 0.5 is the average of the others. Height is not sampled but solved for, so that
    statures follow the given normal distributions.

    Attributes:
        stature_male_m: mean stature of men, metres; close to the mean of industrial countries.
        stature_female_m: likewise of women.
        stature_deviation_m: standard deviation within each.
        between_share: share of people whose gender is uniform in [0, 1] rather than near an end.
        heavy_share: share of people with little muscle and much weight. In MakeHuman only both
            together make a heavy body (men: body-mass index 42 at the extreme, but 26 with
            average muscle), so independent sampling hardly ever makes one.
        heavy_weight, heavy_muscle: uniform ranges for these people.
    """

    stature_male_m: float = 1.765
    stature_female_m: float = 1.63
    stature_deviation_m: float = 0.068
    gender_deviation: float = 0.06
    between_share: float = 0.1
    age: tuple[float, float, float, float] = (0.70, 0.10, 0.60, 0.97)
    muscle: tuple[float, float, float, float] = (0.5, 0.22, 0.0, 1.0)
    weight: tuple[float, float, float, float] = (0.56, 0.25, 0.0, 1.0)
    proportions: tuple[float, float, float, float] = (0.5, 0.2, 0.0, 1.0)
    cupsize: tuple[float, float, float, float] = (0.5, 0.15, 0.1, 0.9)
    firmness: tuple[float, float, float, float] = (0.5, 0.15, 0.1, 0.9)
    heavy_share: float = 0.3
    heavy_weight: tuple[float, float] = (0.7, 1.0)
    heavy_muscle: tuple[float, float] = (0.0, 0.35)


@dataclass(frozen=True, kw_only=True)
class ShapeSpace:
    """Principal components of bodies in the T-pose.

    Attributes:
        mean: (V, 3) metres, symmetric.
        directions: (V, 3, 10) metres per standard deviation, symmetric.
        explained: (10,) share of the sample's variance along each.
    """

    mean: FloatArray
    directions: FloatArray
    explained: FloatArray


def average_person() -> Phenotypes:
    """One body of average everything, (1,) values."""
    third = np.full(1, 1 / 3)
    half = np.full(1, 0.5)
    names = ("gender", "muscle", "weight", "height", "proportions", "cupsize", "firmness")
    return {
        **dict.fromkeys(names, half),
        "height": np.full(1, 0.37),  # 1.70 m
        "age": np.full(1, 0.7),
        **dict.fromkeys(("african", "asian", "caucasian"), third),
    }


def sample_people(
    rig: Rig, population: Population, count: int, generator: np.random.Generator
) -> Phenotypes:
    """Phenotypes (count,) each of random adults."""

    def clipped_normal(values: tuple[float, float, float, float]) -> FloatArray:
        mean, deviation, lowest, highest = values
        return np.clip(generator.normal(mean, deviation, count), lowest, highest)

    gender = _sample_gender(population, count, generator)
    heavy = generator.random(count) < population.heavy_share
    muscle, weight = clipped_normal(population.muscle), clipped_normal(population.weight)
    origins = generator.dirichlet(np.ones(3), count)
    people = {
        "gender": gender,
        "age": clipped_normal(population.age),
        "muscle": np.where(heavy, generator.uniform(*population.heavy_muscle, count), muscle),
        "weight": np.where(heavy, generator.uniform(*population.heavy_weight, count), weight),
        "proportions": clipped_normal(population.proportions),
        "cupsize": clipped_normal(population.cupsize),
        "firmness": clipped_normal(population.firmness),
        **dict(zip(("african", "asian", "caucasian"), origins.T, strict=True)),
    }
    difference = population.stature_female_m - population.stature_male_m
    stature = population.stature_male_m + difference * gender
    stature = stature + generator.normal(0, population.stature_deviation_m, count)
    return {**people, "height": _solve_height(rig, people, stature)}


def _sample_gender(
    population: Population, count: int, generator: np.random.Generator
) -> FloatArray:
    """(count,) values near 0 or 1, and for some people anything between."""
    distance = np.abs(generator.normal(0, population.gender_deviation, count))
    gender = np.where(generator.random(count) < 0.5, 1 - distance, distance)
    between = generator.random(count) < population.between_share
    return np.clip(np.where(between, generator.random(count), gender), 0, 1)


def _solve_height(rig: Rig, people: Phenotypes, stature: FloatArray) -> FloatArray:
    """The height phenotype (N,) that gives a stature; stature is piecewise linear in it."""
    low, middle, high = (
        np.ptp(rest_shapes(_extremes_only(rig), {**people, "height": h})[0][..., 1], axis=1)
        for h in (np.full(len(stature), value) for value in (0.0, 0.5, 1.0))
    )
    below = 0.5 * (stature - low) / (middle - low)
    above = 0.5 + 0.5 * (stature - middle) / (high - middle)
    return np.clip(np.where(stature < middle, below, above), 0, 1)


def _extremes_only(rig: Rig) -> Rig:
    """The rig cut down to head and feet, for measuring statures cheaply."""
    ends = rig.smpl_weights[:, [joint_index(n) for n in END_PARTS]].sum(axis=1) > 0.5
    return rig.restricted(np.flatnonzero(ends), np.empty((0, 3), dtype=np.int64))


def principal_shapes(shapes: FloatArray, mirror: IntArray, faces: IntArray) -> ShapeSpace:
    """Ten principal components of symmetrised bodies, scaled to unit deviation.

    Each component's sign makes it positive towards a taller body for the first and towards a
    larger volume for the others.

    Args:
        shapes: (N, V, 3) metres, T-pose.
        mirror: (V,).
        faces: (F, 3) for the volume.
    """
    symmetric = symmetric_points(shapes, mirror)
    mean = symmetric_points(symmetric.mean(axis=0), mirror)
    rows = (symmetric - mean).reshape(len(shapes), -1)
    # The Gram matrix (N, N) is much smaller than the covariance (3V, 3V).
    values, vectors = np.linalg.eigh(rows @ rows.T)
    values, vectors = values[::-1], vectors[:, ::-1]
    directions = rows.T @ vectors[:, :NUM_BETAS] / np.sqrt(len(shapes))
    directions = directions.reshape(*mean.shape, NUM_BETAS)
    # Symmetric already, but for rounding.
    directions = (directions + directions[mirror] * REFLECTION[:, None]) / 2
    measured = [_size(mean, directions[..., k], faces, tall=k == 0) for k in range(NUM_BETAS)]
    return ShapeSpace(
        mean=mean,
        directions=directions * np.sign(measured),
        explained=values[:NUM_BETAS] / values.sum(),
    )


def _size(mean: FloatArray, direction: FloatArray, faces: IntArray, *, tall: bool) -> float:
    """How much taller (or more voluminous) a body becomes along a direction."""
    larger, smaller = mean + 2 * direction, mean - 2 * direction
    if tall:
        return float(np.ptp(larger[:, 1]) - np.ptp(smaller[:, 1]))
    return float(volumes(larger[None], faces)[0] - volumes(smaller[None], faces)[0])


def volumes(vertices: FloatArray, faces: IntArray) -> FloatArray:
    """(N,) cubic metres enclosed by bodies (N, V, 3); the holes of eyes and mouth are ignored."""
    a, b, c = (vertices[:, faces[:, k]] for k in range(3))
    return np.einsum("nfi,nfi->n", a, np.cross(b, c)) / 6


def body_mass_index(vertices: FloatArray, faces: IntArray) -> FloatArray:
    """(N,) kg/m^2 of bodies (N, V, 3) in the T-pose."""
    mass = BODY_DENSITY * volumes(vertices, faces)
    return mass / np.ptp(vertices[..., 1], axis=1) ** 2


def reconstruction_error(space: ShapeSpace, shapes: FloatArray) -> FloatArray:
    """(N, V) metres between bodies and their best approximation in the space."""
    basis = np.linalg.qr(space.directions.reshape(-1, NUM_BETAS))[0]
    rows = (shapes - space.mean).reshape(len(shapes), -1)
    rest = rows - (rows @ basis) @ basis.T
    return np.linalg.norm(rest.reshape(shapes.shape), axis=-1)
