// Mesh files of a person, as fitting/meshes.py writes them: metres, y up, vertices in their order.

/** The camera's frame turned half about x: y up, and z towards the viewer. */
function turnUpright(vertices) {
  return vertices.map((value, i) => (i % 3 === 0 ? value : -value));
}

/** Wavefront OBJ of vertices (V, 3), y up, and faces (F, 3). */
function encodeObj(vertices, faces) {
  const lines = ["# y up, metres"];
  for (let i = 0; i < vertices.length; i += 3) {
    lines.push(`v ${Array.from(vertices.subarray(i, i + 3), (x) => x.toFixed(6)).join(" ")}`);
  }
  for (let i = 0; i < faces.length; i += 3) {
    lines.push(`f ${Array.from(faces.subarray(i, i + 3), (x) => x + 1).join(" ")}`);
  }
  return new Blob([lines.join("\n"), "\n"], { type: "model/obj" });
}

/** Binary glTF 2.0 of the same: a header, a chunk of JSON and a chunk of numbers. */
function encodeGlb(vertices, faces) {
  const json = padTo4(new TextEncoder().encode(JSON.stringify(describeGltf(vertices, faces))), 0x20);
  const numbers = vertices.byteLength + faces.byteLength;
  const chunk = (length, type) => Uint32Array.of(length, type);
  return new Blob([
    Uint32Array.of(0x46546c67, 2, 12 + 8 + json.length + 8 + numbers), // "glTF", version, length
    chunk(json.length, 0x4e4f534a), json, // "JSON"
    chunk(numbers, 0x004e4942), vertices, faces, // "BIN"
  ], { type: "model/gltf-binary" });
}

function describeGltf(vertices, faces) {
  const bounds = (pick) => [0, 1, 2].map((axis) =>
    vertices.reduce((best, value, i) => (i % 3 === axis ? pick(best, value) : best), vertices[axis]));
  return {
    asset: { version: "2.0", generator: "bodyloop" },
    scene: 0,
    scenes: [{ nodes: [0] }],
    nodes: [{ mesh: 0 }],
    meshes: [{ primitives: [{ attributes: { POSITION: 0 }, indices: 1 }] }],
    accessors: [
      { bufferView: 0, componentType: 5126, count: vertices.length / 3, type: "VEC3",
        min: bounds(Math.min), max: bounds(Math.max) },
      { bufferView: 1, componentType: 5125, count: faces.length, type: "SCALAR" },
    ],
    bufferViews: [
      { buffer: 0, byteOffset: 0, byteLength: vertices.byteLength, target: 34962 },
      { buffer: 0, byteOffset: vertices.byteLength, byteLength: faces.byteLength, target: 34963 },
    ],
    buffers: [{ byteLength: vertices.byteLength + faces.byteLength }],
  };
}

/** Bytes filled up to a multiple of four. */
function padTo4(bytes, filler) {
  const padded = new Uint8Array(Math.ceil(bytes.length / 4) * 4).fill(filler);
  padded.set(bytes);
  return padded;
}

/** Let the reader save a file. */
function offerFile(blob, name) {
  const url = URL.createObjectURL(blob);
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** A name of a file for a person, of letters that every system takes. */
function fileNameOf(index, suffix) {
  const stem = textOf("image", index).replace(/^.*[\\/]/, "").replace(/\.[^.]*$/, "") || "no-picture";
  const safe = stem.replace(/[^\p{L}\p{N}_-]+/gu, "_").slice(0, 80);
  const row = String(columns.row[index]).padStart(6, "0");
  return `${row}_${safe}_${columns.person[index]}.${suffix}`;
}
