// The data that the page carries: columns to sort people by, and a record of each.

const about = JSON.parse(byId("about").textContent);
const columns = about.columns ?? {};
const indices = Array.from({ length: about.count }, (_, index) => index);

/** When the whole page is there, its last and largest parts included. */
const whenLoaded = new Promise((resolve) => {
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", resolve);
  else resolve();
});

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

/** Bytes that base64 stands for. */
function decodeBase64(text) {
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
  return bytes;
}

let recordsText = null;

/**
 * What is known of a person, decoded when asked for: all records at once would fill memory.
 * @returns {Object<string, Float32Array>} the parts of `about.layout`; NaN where there is no fit
 */
function recordOf(index) {
  recordsText ??= byId("records").textContent;
  const length = (about.stride * 4 * 4) / 3; // four characters stand for three bytes
  const bytes = decodeBase64(recordsText.slice(index * length, (index + 1) * length));
  const values = new Float32Array(bytes.buffer);
  const parts = {};
  for (const [name, [first, count]] of Object.entries(about.layout)) {
    parts[name] = values.subarray(first, first + count);
  }
  return parts;
}

/** Whether a record holds a fit. */
function isFitted(record) {
  return record.betas.every(Number.isFinite) && record.transl.every(Number.isFinite);
}

/** Whether a keypoint (its place in the set) of a record was seen. */
function isSeen(record, keypoint) {
  return record.keypoints[3 * keypoint + 2] > 0;
}
