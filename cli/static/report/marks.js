// People marked as bad: kept by the browser for this run, and saved as the CSV that
// `fit-cli export --exclude` reads.

const MARKS_KEY = `bodyloop-marks-${about.runId}`;
const marked = new Set(readMarks()); // rows of the fits table

/** Rows marked earlier; none where the browser keeps nothing for pages from the disk. */
function readMarks() {
  try {
    return JSON.parse(localStorage.getItem(MARKS_KEY) ?? "[]");
  } catch {
    return [];
  }
}

function isMarked(index) {
  return marked.has(columns.row[index]);
}

/** Mark a person, or take the mark back. */
function toggleMark(index) {
  const row = columns.row[index];
  if (!marked.delete(row)) marked.add(row);
  try {
    localStorage.setItem(MARKS_KEY, JSON.stringify([...marked]));
  } catch {
    // The marks live as long as the page, which the button to save them says.
  }
  document.dispatchEvent(new CustomEvent("marks", { detail: index }));
}

/** The marked people as CSV (RFC 4180), in the order of the table. */
function encodeMarks() {
  const chosen = indices.filter(isMarked).sort((a, b) => columns.row[a] - columns.row[b]);
  const lines = chosen.map((i) => [
    quoteCsv(textOf("image", i)), columns.person[i], columns.row[i], columns.errorPx[i] ?? "",
    textOf("status", i),
  ].join(","));
  return ["image,person,row,reprojection_error_px,status", ...lines, ""].join("\r\n");
}

function quoteCsv(text) {
  return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function saveMarks() {
  offerFile(new Blob([encodeMarks()], { type: "text/csv" }), "marks.csv");
}
