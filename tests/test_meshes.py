"""Mesh files read back by trimesh."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from fitting.meshes import write_mesh

TOLERANCE = {".obj": 1e-8, ".ply": 2e-7, ".glb": 2e-7}  # eight decimals; float32 at 3 m


@pytest.fixture
def mesh(rng):
    """An icosphere in shuffled order with a vertex used twice, at a person's distance."""
    shape = trimesh.creation.icosphere(subdivisions=2)
    order = rng.permutation(len(shape.vertices))
    vertices = np.asarray(shape.vertices)[order] + [0.3, -0.2, 2.0]
    faces = np.argsort(order)[np.asarray(shape.faces)]
    duplicate = np.concatenate([vertices, vertices[:1]])  # loaders love to merge these
    faces[0][faces[0] == 0] = len(vertices)
    return duplicate, faces


@pytest.mark.parametrize("suffix", [".obj", ".ply", ".glb", ".GLB"])
def test_round_trip_keeps_every_vertex_and_face_in_order(mesh, tmp_path, suffix):
    vertices, faces = mesh
    path = write_mesh(tmp_path / f"a person{suffix}", vertices, faces, frame="camera")
    loaded = trimesh.load_mesh(path, process=False, maintain_order=True)
    np.testing.assert_allclose(loaded.vertices, vertices, atol=TOLERANCE[suffix.lower()])
    np.testing.assert_array_equal(loaded.faces, faces)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # no temporary file is left


@pytest.mark.parametrize("suffix", [".obj", ".ply", ".glb"])
def test_people_stand_upright_and_are_not_mirrored(mesh, tmp_path, suffix):
    vertices, faces = mesh
    path = write_mesh(tmp_path / f"person{suffix}", vertices, faces)
    loaded = trimesh.load_mesh(path, process=False, maintain_order=True)
    turned = np.stack([vertices[:, 0], -vertices[:, 1], -vertices[:, 2]], axis=1)
    np.testing.assert_allclose(loaded.vertices, turned, atol=2e-7)
    volume = trimesh.Trimesh(vertices, faces, process=False).volume
    assert loaded.volume == pytest.approx(volume, rel=1e-5) and volume > 0


@pytest.mark.parametrize("suffix", [".obj", ".ply", ".glb"])
def test_colors_survive(mesh, tmp_path, rng, suffix):
    vertices, faces = mesh
    colors = rng.uniform(0, 1, vertices.shape)
    path = write_mesh(tmp_path / f"person{suffix}", vertices, faces, colors=colors)
    loaded = trimesh.load_mesh(path, process=False, maintain_order=True)
    np.testing.assert_allclose(loaded.visual.vertex_colors[:, :3] / 255, colors, atol=0.5 / 255)
    write_mesh(path, vertices, faces, colors=(1, 0, 0))
    loaded = trimesh.load_mesh(path, process=False, maintain_order=True)
    assert (loaded.visual.vertex_colors == [255, 0, 0, 255]).all()


def test_ply_is_binary(mesh, tmp_path):
    head = write_mesh(tmp_path / "person.ply", *mesh).read_bytes()[:60]
    assert b"format binary_little_endian" in head


def test_a_failed_write_keeps_the_old_file(mesh, tmp_path, monkeypatch):
    path = write_mesh(tmp_path / "person.obj", *mesh)
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_mesh(path, *mesh, frame="camera")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("person.stl", {}, r"cannot write person.stl: use one of .obj, .ply, .glb"),
        ("person", {}, "cannot write person: use one of"),
        ("person.obj", {"vertices": np.zeros((1, 4, 3))}, "vertices must be"),
        ("person.obj", {"faces": np.zeros((2, 4), int)}, "faces must be"),
        ("person.obj", {"faces": np.zeros((2, 3))}, "faces must be"),
        ("person.obj", {"frame": "z_up"}, "frame must be"),
    ],
)
def test_wrong_arguments_are_named(mesh, tmp_path, name, change, message):
    good = {"vertices": mesh[0], "faces": mesh[1]}
    with pytest.raises(ValueError, match=message):
        write_mesh(tmp_path / name, **{**good, **change})
    assert not list(tmp_path.iterdir())
