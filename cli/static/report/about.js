// The data that the page carries: a description, and records of numbers.

const about = JSON.parse(byId("about").textContent);

/** When the whole page is there, its last and largest parts included. */
const whenLoaded = new Promise((resolve) => {
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", resolve);
  else resolve();
});

/** Bytes that base64 stands for. */
function decodeBase64(text) {
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
  return bytes;
}

let recordsText = null;

/**
 * What is known of somebody, decoded when asked for: all records at once would fill memory.
 * @returns {Object<string, Float32Array>} the parts of `about.layout`; NaN where there is none
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
