// The photograph of a person with the body over it and the keypoints on top.

const OVERLAY_PIXELS = 2 * CROP_SIZE; // sharp on fine screens

/**
 * Show a person on the stage, but for the body, which `drawStageBody` draws.
 * @param {number} index
 * @param record of the person
 * @param fit that of `fitOf`, null where there is none to draw
 * @param {boolean} live whether the body is drawn here, rather than shown as the run drew it
 * @returns the crop of `cropAround`
 */
function showStage(index, record, fit, live) {
  const seen = about.keypointNames.map((_, p) => p).filter((p) => isSeen(record, p));
  const given = (p) => [record.keypoints[3 * p], record.keypoints[3 * p + 1]];
  const around = [...seen.map(given), ...(fit ? seen.map((p) => fit.projected[p]) : [])];
  const crop = cropAround(around, columns.width[index], columns.height[index]);
  showPictures(index, live);
  // Without a body to project, only the drawn picture knows where its crop is.
  const drawable = Boolean(fit) || !columns.drawn[index];
  byId("points").replaceChildren(...(drawable ? drawPoints(seen, given, fit, crop) : []));
  return crop;
}

/** Draw the studio's body as a camera [fx, fy, cx, cy] of the crop's pixels sees it. */
function drawStageBody(studio, camera) {
  const canvas = byId("stage-body");
  if (canvas.width !== OVERLAY_PIXELS) canvas.width = canvas.height = OVERLAY_PIXELS;
  // More pixels share the crop's edges, which lie half a pixel before the first centre.
  const scale = OVERLAY_PIXELS / CROP_SIZE;
  const [fx, fy, cx, cy] = camera;
  const fine = [fx * scale, fy * scale, (cx + 0.5) * scale - 0.5, (cy + 0.5) * scale - 0.5];
  studio.drawThrough(fine, OVERLAY_PIXELS, canvas);
}

/** The photograph; over it the canvas, or without WebGL the picture with the body drawn in. */
function showPictures(index, live) {
  const sources = { "stage-photo": pictureOf(index, "photo"), "stage-overlay": pictureOf(index, "overlay") };
  for (const [id, path] of Object.entries(sources)) {
    const picture = byId(id);
    picture.hidden = path === null || (id === "stage-overlay" && live);
    if (path !== null) picture.src = path;
  }
  byId("stage-photo").alt = `Photograph of ${titleOf(index)}`;
  byId("stage-body").hidden = !live;
}

/** Limbs and discs of the given keypoints; rings of the projected ones, joined to what was given. */
function drawPoints(seen, given, fit, crop) {
  const place = (point) => crop.convert(point).map((value) => value + 0.5); // centres to edges
  const line = ([x1, y1], [x2, y2]) => svgElement("line", { x1, y1, x2, y2 });
  const limbs = about.edges.filter(([a, b]) => seen.includes(a) && seen.includes(b))
    .map(([a, b]) => line(place(given(a)), place(given(b))));
  const groups = [svgElement("g", { class: "given" }, ...limbs)];
  for (const p of seen) {
    const [x, y] = place(given(p));
    const group = svgElement("g", { class: "keypoint", "data-keypoint": p },
      svgElement("title", {}, words(about.keypointNames[p])));
    if (fit && fit.defined[p]) {
      const [u, v] = place(fit.projected[p]);
      group.append(svgElement("g", { class: "projected" }, line([x, y], [u, v]),
        svgElement("circle", { cx: u, cy: v, r: 5.5 })));
    }
    group.append(svgElement("g", { class: "given" }, svgElement("circle", { cx: x, cy: y, r: 3.6 })));
    groups.push(group);
  }
  return groups;
}

/** Make one keypoint stand out, or none. */
function pointAt(keypoint) {
  for (const group of byId("points").querySelectorAll(".keypoint")) {
    group.classList.toggle("pointed", Number(group.dataset.keypoint) === keypoint);
  }
}

/** The controls below the stage. */
function setUpStage() {
  const opacity = byId("opacity");
  const update = () => {
    byId("stage-body").style.opacity = opacity.value / 100;
    byId("stage-overlay").style.opacity = opacity.value / 100;
    byId("opacity-value").textContent = `${opacity.value} %`;
  };
  opacity.addEventListener("input", update);
  update();
  for (const kind of ["given", "projected"]) {
    byId(`show-${kind}`).addEventListener("change", (event) => {
      byId("points").classList.toggle(`no-${kind}`, !event.target.checked);
    });
  }
}

/** A small drawing of the given keypoints, for people without pictures. */
function drawSkeleton(record) {
  const seen = about.keypointNames.map((_, p) => p).filter((p) => isSeen(record, p));
  const point = (p) => [record.keypoints[3 * p], record.keypoints[3 * p + 1]];
  const around = seen.length ? seen.map(point) : [[0, 0], [1, 1]];
  const spans = [0, 1].map((axis) => around.map((xy) => xy[axis]));
  const extent = Math.max(...spans.map((s) => Math.max(...s) - Math.min(...s)), 1) * 1.3;
  const corner = spans.map((s) => (Math.max(...s) + Math.min(...s) - extent) / 2);
  const place = (p) => point(p).map((value, axis) => ((value - corner[axis]) * 100) / extent);
  const limbs = about.edges.filter(([a, b]) => seen.includes(a) && seen.includes(b));
  const path = limbs.map(([a, b]) => `M${place(a).join(" ")}L${place(b).join(" ")}`).join("");
  return svgElement("svg", { viewBox: "0 0 100 100", class: "skeleton", "aria-hidden": "true" },
    svgElement("path", { d: path }),
    ...seen.map((p) => svgElement("circle", { cx: place(p)[0], cy: place(p)[1], r: 1.6 })));
}
