// The dialog that one person opens to.

/** Everything about one person; the list of people it steps through is the gallery's. */
class PersonView {
  constructor() {
    this.dialog = byId("person");
    this.index = null;
    this.order = [];
    this.orbit = null;
    setUpStage();
    this.connect();
  }

  connect() {
    const clicks = {
      previous: () => this.step(-1), next: () => this.step(1), mark: () => toggleMark(this.index),
      close: () => this.dialog.close(), "look-front": () => this.orbit?.look(0, 0),
      "look-side": () => this.orbit?.look(90, 0), "look-top": () => this.orbit?.look(0, 90),
      "save-glb": () => this.saveMesh("glb"), "save-obj": () => this.saveMesh("obj"),
      copy: () => this.copyParameters(),
    };
    for (const [id, act] of Object.entries(clicks)) byId(id).addEventListener("click", act);
    byId("paint").addEventListener("change", () => this.drawViews());
    this.dialog.addEventListener("keydown", (event) => this.pressed(event));
    document.addEventListener("marks", () => this.showMark());
    new ResizeObserver(() => hasOtherPixels(byId("orbit")) && this.drawViews()).observe(byId("orbit"));
  }

  /** Open the dialog, or show another person in it. */
  async show(index, order) {
    [this.index, this.order] = [index, order];
    if (!this.dialog.open) {
      this.dialog.showModal();
      this.dialog.focus(); // not its first button: another Enter must not mark anybody
    }
    byId("person-title").textContent = titleOf(index);
    const place = order.indexOf(index);
    byId("person-place").textContent =
      place < 0 ? "not in the gallery’s choice" : `${place + 1} of ${grouped(order.length)}`;
    this.showMark();
    await whenLoaded;
    const body = await loadBody();
    if (this.index !== index) return; // the reader went on meanwhile
    const studio = body && this.startStudio(body);
    this.record = recordOf(index);
    this.fit = fitOf(body, this.record);
    const live = Boolean(this.fit && studio);
    this.crop = showStage(index, this.record, this.fit, live);
    showFacts(index);
    showKeypointErrors(this.record, this.fit);
    showJointStds(this.record);
    showParameters(this.record);
    this.showModel(live);
    this.dialog.dataset.shown = columns.row[index];
  }

  /** The studio, made once; null in a browser without WebGL. */
  startStudio(body) {
    if (this.studio !== undefined) return this.studio;
    try {
      this.studio = new Studio(body);
      this.orbit = new Orbit(this.studio, byId("orbit"));
    } catch {
      this.studio = null;
    }
    return this.studio;
  }

  /** The views in 3D; without WebGL or a body the picture from the side, where there is one. */
  showModel(live) {
    const picture = pictureOf(this.index, "side");
    byId("model").hidden = byId("around").hidden = !live;
    byId("from-side").hidden = live || picture === null;
    if (!live && picture !== null) byId("from-side-picture").src = picture;
    byId("save-glb").disabled = byId("save-obj").disabled = this.fit === null;
    if (!live) return;
    this.studio.show(this.fit.upright);
    this.orbit.look(30, 8);
    this.drawViews();
  }

  /** Draw the body everywhere again, as after a change of size or colour. */
  drawViews() {
    if (!this.studio || !this.fit || !this.dialog.open) return;
    this.studio.paint(byId("paint").checked ? vertexStd(this.fit.body, this.record.joint_std_mm) : null);
    drawStageBody(this.studio, this.crop.intrinsics(this.record.camera));
    for (const [id, yaw, pitch] of [["view-side", 90, 0], ["view-top", 0, 90]]) {
      fitPixels(byId(id));
      this.studio.drawFrom(yaw, pitch, byId(id));
    }
    this.orbit.draw();
  }

  /** Go some places on in the gallery's order. */
  step(by) {
    const place = this.order.indexOf(this.index) + by;
    if (place >= 0 && place < this.order.length) this.go(this.order[place]);
  }

  go(index) {
    history.replaceState(null, "", `#person-${columns.row[index]}`);
    this.show(index, this.order);
  }

  showMark() {
    if (this.index === null) return;
    byId("mark").setAttribute("aria-pressed", isMarked(this.index) ? "true" : "false");
    byId("mark").textContent = isMarked(this.index) ? "Marked as bad" : "Mark as bad";
  }

  pressed(event) {
    if (takesKeys(event.target) || event.altKey || event.ctrlKey || event.metaKey) return;
    const acts = {
      ArrowLeft: () => this.step(-1), ArrowRight: () => this.step(1), b: () => toggleMark(this.index),
    };
    if (!(event.key in acts)) return;
    acts[event.key]();
    event.preventDefault();
  }

  saveMesh(format) {
    const encode = { glb: encodeGlb, obj: encodeObj }[format];
    offerFile(encode(this.fit.upright, this.fit.body.faces), fileNameOf(this.index, format));
  }

  async copyParameters() {
    const text = byId("parameters").textContent;
    try {
      await navigator.clipboard.writeText(text);
      byId("copy").textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(byId("parameters"));
      byId("copy").textContent = "Selected: press Ctrl+C";
    }
    setTimeout(() => (byId("copy").textContent = "Copy"), 2000);
  }
}

/**
 * The posed body of a record with a fit; null without.
 * @returns {?{body, upright: Float32Array, projected: number[][], defined: Uint32Array}} its
 *   vertices (V, 3) in metres, y up, and its keypoints in pixels
 */
function fitOf(body, record) {
  if (!body || !isFitted(record)) return null;
  const posed = poseBody(body, record);
  return {
    body,
    upright: turnUpright(posed.vertices),
    projected: projectPoints(bodyKeypoints(body, posed), record.camera),
    defined: body.defined,
  };
}

function showFacts(index) {
  const value = (name) => columns[name][index];
  const facts = {
    "error, of the person’s size": percent(value("error")),
    "mean error": fixed(value("errorPx"), 1, " px"),
    "mean σ of the joints": fixed(value("sigma"), 0, " mm"),
    "prior cost": fixed(value("prior"), 1, " nats"),
    cost: `${fixed(value("costInitial"), 0)} → ${fixed(value("cost"), 0)}`,
    "status": `${words(textOf("status", index))}, ${value("steps")} steps`,
    "began at": textOf("init", index),
    "keypoints seen": `${value("seen")} of ${about.keypointNames.length}`,
    "picture": `${value("width")} × ${value("height")} px`,
  };
  byId("facts").replaceChildren(...Object.entries(facts).map(([name, text]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, text))));
}

/** Distances in pixels between given and projected keypoints. */
function showKeypointErrors(record, fit) {
  const entries = about.keypointNames.map((name, p) => {
    if (!isSeen(record, p)) return { name, value: null, note: "unseen" };
    if (!fit) return { name, value: null, note: "–" };
    if (!fit.defined[p]) return { name, value: null, note: "not on this body" };
    const [u, v] = fit.projected[p];
    return { name, value: Math.hypot(u - record.keypoints[3 * p], v - record.keypoints[3 * p + 1]) };
  });
  showBars(byId("keypoint-errors"), entries, " px", pointAt);
}

function showJointStds(record) {
  const entries = about.jointNames.map((name, j) => {
    const value = record.joint_std_mm[j];
    return { name, value: Number.isFinite(value) ? value : null, note: "–" };
  });
  showBars(byId("joint-stds"), entries, " mm");
}

/** The parameters as JSON, in the digits that they have. */
function showParameters(record) {
  const names = ["global_orient", "body_pose", "betas", "transl"];
  const numbers = (part) => `[${Array.from(part, (x) => Number(x.toPrecision(7))).join(", ")}]`;
  const [fx, fy, cx, cy] = record.camera;
  const lines = names.map((name) => `  "${name}": ${numbers(record[name])}`);
  lines.push(`  "intrinsics": [${numbers([fx, 0, cx])}, ${numbers([0, fy, cy])}, [0, 0, 1]]`);
  byId("parameters").textContent = isFitted(record) ? `{\n${lines.join(",\n")}\n}` : "no fit";
  byId("copy").disabled = !isFitted(record);
}
