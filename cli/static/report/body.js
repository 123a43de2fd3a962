// The body, posed from parameters as fitting/body.py does it: equations 6 to 9 and 2 of Loper et al.,
// "SMPL: A Skinned Multi-Person Linear Model" (SIGGRAPH Asia 2015). Metres, in the camera's frame:
// x right, y down, z forward. A test holds the two implementations equal.

const MIN_DEPTH = 0.01; // metres, as in fitting/camera.py
const NUM_JOINTS = 24;
const ARRAY_TYPES = { f4: Float32Array, u4: Uint32Array, i2: Int16Array, i1: Int8Array };

let loadedBody = null;

/** The body that the page carries, unpacked once; null if none, or in a browser that cannot. */
function loadBody() {
  if (about.body) loadedBody ??= whenLoaded.then(unpackBody).catch(() => null);
  return loadedBody;
}

/**
 * The arrays of cli/page_body.py, `template` and `shapes` as numbers; `poses` stays as 8 bits, with
 * the scales of its rows. `skin` lists for each vertex the joints that move it.
 */
async function unpackBody() {
  const packed = new Blob([decodeBase64(byId("body").textContent)]);
  const stream = packed.stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  const body = {};
  for (const [name, { type, offset, shape, scales }] of Object.entries(about.body)) {
    const length = shape.reduce((a, b) => a * b, 1);
    const values = new ARRAY_TYPES[type](buffer, offset, length);
    body[name] = scales === null || name === "poses" ? values : rescale(values, scales);
  }
  body.poseScales = about.body.poses.scales;
  body.numVertices = body.template.length / 3;
  body.skin = listWeights(body.weights, body.numVertices);
  return body;
}

/** Rounded numbers back to numbers; each of the rows has a scale of its own. */
function rescale(integers, scales) {
  const numbers = new Float32Array(integers.length);
  const length = integers.length / scales.length;
  scales.forEach((scale, row) => {
    for (let i = row * length; i < (row + 1) * length; i++) numbers[i] = scale * integers[i];
  });
  return numbers;
}

/** Of the (24, V) weights those that are not zero, vertex by vertex; they sum to 1 again. */
function listWeights(weights, numVertices) {
  const first = new Uint32Array(numVertices + 1);
  const joints = [];
  const shares = [];
  for (let v = 0; v < numVertices; v++) {
    let sum = 0;
    for (let j = 0; j < NUM_JOINTS; j++) {
      if (weights[j * numVertices + v] === 0) continue;
      joints.push(j);
      shares.push(weights[j * numVertices + v]);
      sum += weights[j * numVertices + v];
    }
    for (let k = first[v]; k < shares.length; k++) shares[k] /= sum;
    first[v + 1] = shares.length;
  }
  return { first, joints: Uint8Array.from(joints), shares: Float32Array.from(shares) };
}

/**
 * A posed body.
 * @param body of `loadBody`
 * @param record of `recordOf`, with a fit
 * @returns {{vertices: Float32Array, joints: Float64Array}} (V, 3) and (24, 3), flat
 */
function poseBody(body, record) {
  const rotations = localRotations(record);
  const rest = restJoints(body, record.betas);
  const chained = chainJoints(rotations, rest);
  const shaped = shapeBody(body, record.betas, rotations);
  return moveBody(skinBody(body, shaped, rest, chained), chained.joints, record.transl);
}

/** (24, 9) rotation matrices of the joints relative to their parents. */
function localRotations(record) {
  const rotations = new Float64Array(9 * NUM_JOINTS);
  rotations.set(rotationMatrix(...record.global_orient), 0);
  for (let j = 1; j < NUM_JOINTS; j++) {
    rotations.set(rotationMatrix(...record.body_pose.subarray(3 * j - 3, 3 * j)), 9 * j);
  }
  return rotations;
}

/** Rodrigues' formula: the 9 entries of a rotation by the vector (x, y, z), radians. */
function rotationMatrix(x, y, z) {
  const angle = Math.hypot(x, y, z);
  const a = angle > 1e-8 ? Math.sin(angle) / angle : 1;
  const b = angle > 1e-8 ? (1 - Math.cos(angle)) / (angle * angle) : 0.5;
  return [
    1 - b * (y * y + z * z), b * x * y - a * z, b * x * z + a * y,
    b * x * y + a * z, 1 - b * (x * x + z * z), b * y * z - a * x,
    b * x * z - a * y, b * y * z + a * x, 1 - b * (x * x + y * y),
  ];
}

/** (24, 3) joints of the unposed body of a shape. */
function restJoints(body, betas) {
  const joints = Float64Array.from(body.jointTemplate);
  for (let k = 0; k < betas.length; k++) {
    for (let i = 0; i < joints.length; i++) {
      joints[i] += betas[k] * body.jointShapes[k * joints.length + i];
    }
  }
  return joints;
}

/** Rotations (24, 9) and places (24, 3) of the joints in the body's frame, along the tree. */
function chainJoints(local, rest) {
  const rotations = local.slice();
  const joints = rest.slice();
  for (let j = 1; j < NUM_JOINTS; j++) {
    const p = about.parents[j];
    const R = rotations.subarray(9 * p, 9 * p + 9);
    for (let r = 0; r < 3; r++) {
      joints[3 * j + r] = joints[3 * p + r];
      for (let c = 0; c < 3; c++) {
        joints[3 * j + r] += R[3 * r + c] * (rest[3 * j + c] - rest[3 * p + c]);
        rotations[9 * j + 3 * r + c] =
          R[3 * r] * local[9 * j + c] + R[3 * r + 1] * local[9 * j + 3 + c] +
          R[3 * r + 2] * local[9 * j + 6 + c];
      }
    }
  }
  return { rotations, joints };
}

/** (V, 3) unposed body of a shape with the correctives of a pose. */
function shapeBody(body, betas, rotations) {
  const vertices = Float32Array.from(body.template);
  for (let k = 0; k < betas.length; k++) {
    addScaled(vertices, body.shapes, k, betas[k]);
  }
  for (let k = 0; k < body.poseScales.length; k++) {
    const isDiagonal = k % 9 === 0 || k % 9 === 4 || k % 9 === 8;
    const feature = rotations[9 + k] - (isDiagonal ? 1 : 0); // of the matrices R - I of joints 1 to 23
    addScaled(vertices, body.poses, k, feature * body.poseScales[k]);
  }
  return vertices;
}

/** Add a multiple of one row of `rows` to `sum`. */
function addScaled(sum, rows, row, factor) {
  if (factor === 0) return;
  const first = row * sum.length;
  for (let i = 0; i < sum.length; i++) sum[i] += factor * rows[first + i];
}

/** (V, 3) vertices moved by the joints' transforms x -> R (x - rest) + joint, blended linearly. */
function skinBody(body, shaped, rest, { rotations, joints }) {
  const posed = new Float32Array(shaped.length);
  const { first, joints: movers, shares } = body.skin;
  for (let v = 0; v < body.numVertices; v++) {
    for (let k = first[v]; k < first[v + 1]; k++) {
      const j = movers[k];
      const x = shaped[3 * v] - rest[3 * j];
      const y = shaped[3 * v + 1] - rest[3 * j + 1];
      const z = shaped[3 * v + 2] - rest[3 * j + 2];
      for (let r = 0; r < 3; r++) {
        const turn = 9 * j + 3 * r;
        posed[3 * v + r] += shares[k] * (
          rotations[turn] * x + rotations[turn + 1] * y + rotations[turn + 2] * z + joints[3 * j + r]
        );
      }
    }
  }
  return posed;
}

function moveBody(vertices, joints, transl) {
  return {
    vertices: vertices.map((value, i) => value + transl[i % 3]),
    joints: joints.map((value, i) => value + transl[i % 3]),
  };
}

/** (P, 3) keypoints of a posed body: fixed combinations of joints and of a few vertices. */
function bodyKeypoints(body, { vertices, joints }) {
  const count = body.keypointJoints.length / NUM_JOINTS;
  const numUsed = body.vertexIds.length;
  const points = new Float64Array(3 * count);
  for (let p = 0; p < count; p++) {
    for (let c = 0; c < 3; c++) {
      let sum = 0;
      for (let j = 0; j < NUM_JOINTS; j++) {
        sum += body.keypointJoints[p * NUM_JOINTS + j] * joints[3 * j + c];
      }
      for (let u = 0; u < numUsed; u++) {
        sum += body.keypointVertices[p * numUsed + u] * vertices[3 * body.vertexIds[u] + c];
      }
      points[3 * p + c] = sum;
    }
  }
  return points;
}

/** Pixels [x, y] of points (P, 3) before a camera [fx, fy, cx, cy]. */
function projectPoints(points, [fx, fy, cx, cy]) {
  const pixels = [];
  for (let i = 0; i < points.length; i += 3) {
    const depth = Math.max(points[i + 2], MIN_DEPTH);
    pixels.push([(points[i] / depth) * fx + cx, (points[i + 1] / depth) * fy + cy]);
  }
  return pixels;
}

/** (V,) standard deviation of each vertex, mm: that of the joints that move it. */
function vertexStd(body, jointStd) {
  const { first, joints, shares } = body.skin;
  return Float32Array.from({ length: body.numVertices }, (_, v) => {
    let sum = 0;
    for (let k = first[v]; k < first[v + 1]; k++) sum += shares[k] * jointStd[joints[k]];
    return sum;
  });
}
