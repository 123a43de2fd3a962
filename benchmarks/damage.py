"""Damage done to files where it counts: within their structure, which stays one of its kind.

Each function takes the content of a file and a source of chance, and returns other content. They
may fail on what is no file of their kind any more.
"""

from __future__ import annotations

import io
import json
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

Damage = Callable[[bytes, Random], bytes]

_TEXTS = (
    "",
    "a.jpg",
    "../a.jpg",
    "/etc/passwd",
    "C:\\a",
    "a\0b",
    "<b>",
    "\ud800",
    "\n",
    "x" * 2000,
)
_NUMBERS = (
    0,
    1,
    -1,
    3,
    17,
    255,
    2**31,
    2**63,
    10**30,
    0.5,
    1e39,
    1e308,
    float("nan"),
    float("inf"),
)
_WORDS = (0, 1, 2, 3, 7, 14, 24, 255, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1)
_SHAPES: tuple[tuple[int, ...], ...] = (
    (),
    (0,),
    (1,),
    (3,),
    (3, 0),
    (2, 17, 2),
    (2, 0, 3),
    (1, 1, 1, 1),
)
_TYPES = ("f8", "f4", ">f8", "f2", "i8", "u1", "?", "c16", "U1", "U0", "S3", "S0", "V4", "M8[s]")


def value(rng: Random, depth: int = 0) -> Any:
    """Anything that JSON and YAML can hold."""
    kind = rng.randrange(6 if depth < 2 else 3)
    if kind <= 1:
        return rng.choice((*_TEXTS, *_NUMBERS))
    if kind == 2:
        return rng.choice((None, True, False))
    if kind == 3:
        return [value(rng, depth + 1)] * rng.randrange(4)
    return {rng.choice(_TEXTS): value(rng, depth + 1) for _ in range(rng.randrange(3))}


def damage_tree(root: Any, rng: Random) -> Any:
    """One node of a tree of lists and dictionaries replaced, removed or doubled, in place."""
    nodes = _places(root)
    if not nodes:
        return value(rng)
    holder, key = rng.choice(nodes)
    kind = rng.randrange(5)
    if kind == 0:
        del holder[key]
    elif kind == 1:
        other, place = rng.choice(nodes)
        holder[key] = json.loads(json.dumps(other[place]))  # a copy, so that it stays a tree
    elif kind == 2 and isinstance(holder, list):
        holder.insert(key, holder[key])
    elif kind == 2:
        holder[rng.choice(_TEXTS)] = holder.pop(key)
    else:
        holder[key] = value(rng)
    return root


def _places(node: Any) -> list[tuple[Any, Any]]:
    """(holder, key) of every node below one; long lists of numbers count as a few."""
    if isinstance(node, dict):
        keys: list[Any] = list(node)
    elif isinstance(node, list):
        keys = list(range(len(node)))[:4]
    else:
        return []
    return [(node, key) for key in keys] + [p for key in keys for p in _places(node[key])]


def damage_json(content: bytes, rng: Random) -> bytes:
    return json.dumps(damage_tree(json.loads(content), rng)).encode("utf-8", "surrogatepass")


def damage_yaml(content: bytes, rng: Random) -> bytes:
    tree = damage_tree(yaml.safe_load(content), rng)
    return yaml.safe_dump(tree).encode("utf-8", "surrogatepass")


def damage_csv(content: bytes, rng: Random) -> bytes:
    rows = [line.split(b",") for line in content.split(b"\n")]
    row = rng.choice(rows)
    place = rng.randrange(len(row))
    other = str(rng.choice((*_TEXTS, *_NUMBERS))).encode("utf-8", "surrogatepass")
    kind = rng.randrange(4)
    if kind == 0:
        row[place] = other
    elif kind == 1:
        row.insert(place, other)
    elif kind == 2:
        row[place] = b'"' + row[place] + rng.choice((b'"', b'""', b""))
    else:
        rows.insert(rng.randrange(len(rows)), list(rng.choice(rows)))
    return b"\n".join(b",".join(cells) for cells in rows)


def damage_words(content: bytes, rng: Random) -> bytes:
    """Some numbers of four bytes, at places that are multiples of four."""
    damaged = bytearray(content)
    for _ in range(rng.randrange(1, 4)):
        place = 4 * rng.randrange(len(content) // 4)
        damaged[place : place + 4] = struct.pack("<I", rng.choice(_WORDS))
    return bytes(damaged)


# --- Arrays ---


def array(rng: Random) -> np.ndarray:
    """Of any type and shape."""
    shape = rng.choice(_SHAPES)
    dtype = np.dtype(rng.choice(_TYPES))
    count = int(np.prod(shape))
    return np.frombuffer(rng.randbytes(count * dtype.itemsize), np.uint8).view(dtype).reshape(
        shape
    ) if dtype.itemsize and count else np.zeros(shape, dtype)  # fmt: skip


def damage_array(found: np.ndarray, rng: Random) -> np.ndarray:
    """Another type, another shape or another number."""
    kind = rng.randrange(6)
    if kind == 0:
        return array(rng)
    if kind == 1:
        return found.astype(rng.choice(("f4", "i8", "u1", "U8", "S8", "c16", "?", ">f8")))
    if kind == 2 and found.ndim:
        return np.repeat(found, rng.randrange(3), axis=rng.randrange(found.ndim))
    if kind == 3:
        return found[None] if rng.random() < 0.5 or not found.ndim else found.reshape(-1)
    if kind == 4 and found.ndim:
        return found.T
    changed = found.copy()
    if found.dtype.kind == "U":
        changed = changed.astype("U2000")
        changed.flat[rng.randrange(max(found.size, 1))] = rng.choice(_TEXTS)
    elif found.dtype.kind == "f":
        changed.flat[rng.randrange(max(found.size, 1))] = rng.choice(_NUMBERS)
    elif found.dtype.kind in "iu":
        changed.flat[rng.randrange(max(found.size, 1))] = rng.randrange(-1, 100) % 128
    return changed


def damage_npy(content: bytes, rng: Random) -> bytes:
    """An array, its header or what follows."""
    if rng.random() < 0.7:
        stream = io.BytesIO()
        found = np.load(io.BytesIO(content), allow_pickle=False)
        with np.errstate(all="ignore"):
            np.save(stream, damage_array(found, rng), allow_pickle=False)
        return stream.getvalue()
    end = content.index(b"\n") if rng.random() < 0.8 else len(content)
    damaged = bytearray(content)
    damaged[rng.randrange(end)] = rng.choice(b"0123456789(),<>|fiuUSOV' \x00\xff")
    return bytes(damaged)


def damage_npz(content: bytes, rng: Random) -> bytes:
    return _damage_member(content, rng, damage_npy)


def damage_checkpoint(content: bytes, rng: Random) -> bytes:
    if not content.startswith(b"PK"):  # the older layout: pickles one after another
        return damage_words(content, rng)

    def damage(member: bytes, rng: Random) -> bytes:
        return (damage_pickle if member.startswith(b"\x80") else damage_words)(member, rng)

    return _damage_member(content, rng, damage)


def _damage_member(content: bytes, rng: Random, damage: Damage) -> bytes:
    """One member of a ZIP archive, which is packed again without compression."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = rng.choice(sorted(members))
    kind = rng.randrange(10)
    if kind == 0:
        del members[name]
    elif kind == 1:
        members[name] = members[rng.choice(sorted(members))]
    else:
        members[name] = damage(members[name], rng)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for member, inside in members.items():
            archive.writestr(zipfile.ZipInfo(member), inside)
    return stream.getvalue()


# --- Pickles: their opcodes, as nothing here may unpickle a stranger's file ---

_OPCODES = (
    b"N", b"K\x03", b"J\xff\xff\xff\x7f", b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f", b"(", b")",
    b"]", b"}", b"t", b"R", b"b", b"s", b"a", b"0", b"2", b"\x85", b"\x86", b"\x87", b"\x81",
    b"X\x01\x00\x00\x00x", b"C\x02ab", b"q\x01", b"h\x01", b"r\x00\x00\x00\x7f",
    b"cnumpy\ndtype\n", b"cnumpy\nndarray\n", b"cnumpy.core.multiarray\nscalar\n",
    b"cchumpy.ch\nCh\n", b"cscipy.sparse.csc\ncsc_matrix\n", b"c_codecs\nencode\n",
    b"cbuiltins\nset\n", b"cos\nsystem\n",
)  # fmt: skip


def damage_pickle(content: bytes, rng: Random) -> bytes:
    starts = [place for _, _, place in pickletools.genops(content)]
    operations = [content[a:b] for a, b in zip(starts, [*starts[1:], len(content)], strict=True)]
    for _ in range(rng.randrange(1, 3)):
        place, kind = rng.randrange(len(operations)), rng.randrange(5)
        if kind == 0:
            del operations[place]
        elif kind == 1:
            operations.insert(place, rng.choice(_OPCODES))
        elif kind == 2:
            operations[place] = rng.choice(operations)
        elif kind == 3:
            operations[place] = rng.choice(_OPCODES)
        else:
            changed = bytearray(operations[place])
            changed[rng.randrange(len(changed))] = rng.randrange(256)
            operations[place] = bytes(changed)
    return b"".join(operations)


# --- Pictures and tables ---


def damage_picture(content: bytes, rng: Random) -> bytes:
    """A chunk of a PNG, with the checksum that belongs to it; any byte of others."""
    if not content.startswith(b"\x89PNG"):
        damaged = bytearray(content)
        for _ in range(rng.randrange(1, 5)):
            damaged[rng.randrange(min(len(damaged), 600))] = rng.choice((0, 1, 2, 127, 128, 255))
        return bytes(damaged)
    chunks, at = [], 8
    while at + 12 <= len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        chunks.append((content[at + 4 : at + 8], bytearray(content[at + 8 : at + 8 + size])))
        at += 12 + size
    name, inside = rng.choice(chunks)
    if inside and rng.random() < 0.8:
        inside[rng.randrange(len(inside))] = rng.choice((0, 1, 2, 3, 4, 6, 16, 127, 255))
    else:
        chunks.insert(rng.randrange(len(chunks)), (name, inside))
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    ]
    return content[:8] + b"".join(parts)


def damage_parquet(content: bytes, rng: Random) -> bytes:
    """A column of another type, with other values, nulls, or none at all."""
    table = pq.read_table(io.BytesIO(content))
    place = rng.randrange(table.num_columns)
    name, column = table.column_names[place], table.column(place).combine_chunks()
    values = column.to_pylist()
    kind = rng.randrange(6)
    if kind == 0:
        table = table.remove_column(place)
    elif kind == 1:
        table = table.set_column(place, rng.choice(table.column_names), column)
    elif kind == 2:
        metadata = {
            b"bodyloop": rng.choice((b"", b"3", b"{}", b"[", b'{"body_sha256": 3}', b"\xff"))
        }
        table = table.replace_schema_metadata(metadata)
    else:
        row = rng.randrange(max(len(values), 1))
        if isinstance(values[row], list) and values[row]:
            numbers = values[row]
            numbers[rng.randrange(len(numbers))] = rng.choice((None, *map(float, _NUMBERS)))
            values[row] = numbers[: rng.choice((len(numbers), len(numbers) - 1))]
        else:
            values[row] = rng.choice((None, *_TEXTS, *_NUMBERS))
        of_kind = column.type if rng.random() < 0.8 else None
        table = table.set_column(place, name, pa.array(values, type=of_kind))
    stream = io.BytesIO()
    pq.write_table(table, stream)
    return stream.getvalue()
