// The people that the page carries: columns to sort them by, and a record of each.

const columns = about.columns ?? {};
const indices = Array.from({ length: about.count }, (_, index) => index);

/** The text that a column's number stands for: `image`, `status` or `init` of a person. */
function textOf(name, index) {
  return about.texts[name][columns[name][index]];
}

/** What a person is called. */
function titleOf(index) {
  return `${textOf("image", index) || "no picture"}, person ${columns.person[index]}`;
}

/** The same without the folders of the picture, where there is little room. */
function shortTitleOf(index) {
  return titleOf(index).replace(/^.*[\\/]/, "");
}

/** Path of one of a person's pictures, "photo", "overlay" or "side"; null where none was drawn. */
function pictureOf(index, kind) {
  if (!columns.drawn[index]) return null;
  return `people/${String(columns.row[index]).padStart(6, "0")}_${kind}.jpg`;
}

/** "good", "fair", "poor", or "none" without a fit. */
function gradeOf(index) {
  const error = columns.error[index];
  if (error === null) return "none";
  if (error <= about.good) return "good";
  return error <= about.fair ? "fair" : "poor";
}

/** Whether a record holds a fit. */
function isFitted(record) {
  return record.betas.every(Number.isFinite) && record.transl.every(Number.isFinite);
}

/** Whether a keypoint (its place in the set) of a record was seen. */
function isSeen(record, keypoint) {
  return record.keypoints[3 * keypoint + 2] > 0;
}
