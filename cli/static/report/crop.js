// The square around a person that fitting/overlay.py cuts out of a photograph (`crop_around`), so
// that what the page draws lies where the pictures show it. A test holds the two equal.

const CROP_SIZE = 384; // pixels, as fitting/pictures.py draws them
const CROP_PADDING = 0.25; // on each side, as a share of the points' extent

/**
 * @param {number[][]} points full-image pixels [x, y]; those outside count as on the border
 * @param {number} width of the photograph
 * @param {number} height
 * @returns {{convert: function(number[]): number[], intrinsics: function(number[]): number[]}}
 *   from full-image pixels, and from a camera [fx, fy, cx, cy], to those of the crop
 */
function cropAround(points, width, height) {
  const limits = [width - 1, height - 1];
  const known = points.filter((point) => point.every(Number.isFinite));
  const spans = limits.map((limit, axis) => {
    if (known.length === 0) return [0, limit];
    const inside = known.map((point) => Math.min(Math.max(point[axis], 0), limit));
    return [Math.min(...inside), Math.max(...inside)];
  });
  const extent = Math.max(...spans.map(([low, high]) => high - low));
  const side = Math.ceil(extent * (1 + 2 * CROP_PADDING)) + 1;
  const corner = spans.map(([low, high]) => roundHalfEven((low + high + 1 - side) / 2));
  const scale = CROP_SIZE / side;
  // Edges, half a pixel before the first centre, fall on edges.
  const convert = (point) => point.map((value, axis) => (value - corner[axis] + 0.5) * scale - 0.5);
  const intrinsics = ([fx, fy, cx, cy]) => [scale * fx, scale * fy, ...convert([cx, cy])];
  return { convert, intrinsics };
}

/** As NumPy rounds. */
function roundHalfEven(value) {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}
