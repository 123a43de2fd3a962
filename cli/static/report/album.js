// The same few people after different numbers of steps: the estimate beside the fit or the truth.

const NUM_PARAMETERS = { global_orient: 3, body_pose: 69, betas: 10, transl: 3 };
const SIDES = ["estimate", "fit"];
const FRAME_MS = 24; // of drawing, then the reader is asked again
const PLAY_MS = 650;

/** What is known of person `k` after the step of place `s`: parameters and joints of both sides. */
function snapshotOf(s, k) {
  const parts = recordOf(s * about.people.length + k);
  return Object.fromEntries(SIDES.map((side) => [side, {
    params: splitParameters(parts[side]), points: parts[`${side}Points`],
  }]));
}

/** Parameters by name, as `poseBody` takes them; null where they are unknown. */
function splitParameters(numbers) {
  if (!numbers.every(Number.isFinite)) return null;
  const params = {};
  let first = 0;
  for (const [name, length] of Object.entries(NUM_PARAMETERS)) {
    params[name] = numbers.subarray(first, (first += length));
  }
  return params;
}

/** A number of person `k` after the step of place `s`. */
function numberOf(name, s, k) {
  return about.columns[name][s * about.people.length + k];
}

/** What the second picture of a person shows. */
function nameOfFit(k) {
  return about.people[k].against === "truth" ? "truth" : "best fit known";
}

/** A person's picture with a body or a skeleton over it. */
class Overlay {
  constructor(k, side) {
    Object.assign(this, { k, side });
    const name = side === "estimate" ? "estimate" : nameOfFit(k);
    const { picture, size, keypoints, title } = about.people[k];
    this.canvas = element("canvas", { role: "img", "aria-label": `${name} over the picture of ${title}` });
    this.lines = svgElement("svg", { viewBox: `-0.5 -0.5 ${size} ${size}`, "aria-hidden": true });
    this.square = element("div", { class: `square ${side}` },
      element("img", { src: picture, alt: "", decoding: "async" }), this.canvas, this.lines);
    this.given = keypoints.map((_, i) => i).filter((i) => i % 2 === 0).map((i) =>
      svgElement("circle", { cx: keypoints[i], cy: keypoints[i + 1], r: size / 110, class: "given" }));
  }

  /**
   * Draw it.
   * @param snapshot one side of `snapshotOf`
   * @param body of `loadBody`
   * @param {?Studio} studio null where there is no body or no WebGL: joints are drawn instead
   */
  draw({ params, points }, body, studio) {
    this.canvas.hidden = params === null || studio === null;
    this.square.classList.toggle("nobody", params === null);
    this.lines.replaceChildren(...this.given, ...(studio ? [] : drawJoints(points)));
    if (this.canvas.hidden) return;
    fitPixels(this.canvas);
    studio.show(turnUpright(poseBody(body, params).vertices));
    studio.paint(null);
    const { camera: [fx, fy, cx, cy], size } = about.people[this.k];
    const scale = this.canvas.width / size;
    const fine = [fx * scale, fy * scale, (cx + 0.5) * scale - 0.5, (cy + 0.5) * scale - 0.5];
    studio.drawThrough(fine, this.canvas.width, this.canvas);
  }
}

/** Bones between joints (24 times x, y). */
function drawJoints(points) {
  const at = (j) => [points[2 * j], points[2 * j + 1]];
  return about.parents.map((parent, j) => [parent, j])
    .filter(([parent, j]) => parent >= 0 && [...at(parent), ...at(j)].every(Number.isFinite))
    .map(([parent, j]) => {
      const [[x1, y1], [x2, y2]] = [at(parent), at(j)];
      return svgElement("line", { class: "bone", x1, y1, x2, y2 });
    });
}

/** How far the estimate is from the fit or the truth, and what is known of the fit. */
function describeFit(s, k) {
  const { against } = about.people[k];
  const error = numberOf("error", s, k);
  const parts = [];
  if (error !== null) parts.push(`${fixed(error, 0, " mm")} from the ${against}`);
  if (against === "fit") {
    const origin = numberOf("origin", s, k);
    parts.push(origin === "none" ? "no fit yet" : `${origin}, epoch ${numberOf("epoch", s, k)}`);
    const sigma = numberOf("sigma", s, k);
    if (sigma !== null) parts.push(`σ ${fixed(sigma, 0, " mm")}`);
  }
  return parts.join(" · ") || "nothing known in 3D";
}

/** One person among the others. */
class PersonCard {
  constructor(k, open) {
    this.k = k;
    this.overlays = SIDES.map((side) => new Overlay(k, side));
    if (about.people[k].against === "") this.overlays.pop();
    this.numbers = element("span", { class: "numbers" });
    this.item = element("li", { class: "pair" },
      element("a", { href: `#person-${k}`, title: about.people[k].place, click: (event) => open(k, event) },
        element("span", { class: "sides" }, ...this.overlays.map((overlay) => overlay.square)),
        element("bdi", { class: "name" }, about.people[k].title), this.numbers));
  }

  draw(s, body, studio) {
    const snapshot = snapshotOf(s, this.k);
    for (const overlay of this.overlays) overlay.draw(snapshot[overlay.side], body, studio);
    this.item.dataset.step = about.steps[s];
  }
}

/** Everybody who is shown, the slider over the steps, and the dialog for a closer look. */
class AlbumView {
  /** @param {Pointer} pointer of the charts, which the slider moves */
  constructor(pointer) {
    this.pointer = pointer;
    this.place = about.steps.length - 1; // among the steps
    this.onScreen = new Set();
    this.stale = new Set();
    this.timer = null;
    const open = (k, event) => this.clicked(k, event);
    this.cards = about.people.map((_, k) => new PersonCard(k, open));
    for (const list of document.querySelectorAll("#people .pairs")) {
      list.append(...this.cards.filter(({ k }) => about.people[k].group === list.dataset.group).map((card) => card.item));
    }
    this.closer = new CloserLook(this);
    this.connect();
    whenLoaded.then(() => this.start());
  }

  connect() {
    const slider = byId("step");
    slider.max = this.place;
    slider.value = this.place;
    slider.addEventListener("input", () => this.goTo(Number(slider.value)));
    byId("play").addEventListener("click", () => this.play(this.timer === null));
    const observer = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        const card = this.cards.find(({ item }) => item === target);
        if (isIntersecting) this.onScreen.add(card);
        else this.onScreen.delete(card);
      }
      this.draw();
    }, { rootMargin: "200px" });
    for (const { item } of this.cards) observer.observe(item);
    addEventListener("hashchange", () => this.follow());
    addEventListener("resize", () => this.redraw());
  }

  async start() {
    this.body = await loadBody();
    this.studio = null;
    try {
      if (this.body) this.studio = new Studio(this.body);
    } catch {
      // Without WebGL joints are drawn.
    }
    this.isReady = true;
    this.goTo(this.place);
    this.follow();
  }

  /** Show the step of a place. */
  goTo(place) {
    this.place = Math.min(Math.max(place, 0), about.steps.length - 1);
    const text = `step ${grouped(about.steps[this.place])}`;
    byId("step").value = this.place;
    byId("step").setAttribute("aria-valuetext", text);
    byId("step-value").textContent = text;
    this.pointer.pointAt(this.place === about.steps.length - 1 ? null : about.steps[this.place]);
    this.redraw();
    this.closer.show(this.closer.k);
  }

  play(on) {
    clearInterval(this.timer);
    this.timer = null;
    byId("play").setAttribute("aria-pressed", on ? "true" : "false");
    byId("play").textContent = on ? "❚❚" : "▶";
    byId("play").setAttribute("aria-label", on ? "Stop" : "Play");
    if (!on) return;
    if (this.place === about.steps.length - 1) this.goTo(0);
    this.timer = setInterval(() => {
      this.goTo(this.place + 1);
      if (this.place === about.steps.length - 1) this.play(false);
    }, PLAY_MS);
  }

  redraw() {
    for (const card of this.cards) card.numbers.textContent = describeFit(this.place, card.k);
    this.stale = new Set(this.cards);
    this.draw();
  }

  /**
   * Draw cards on the screen that do not show the step, some in each frame; none behind the dialog,
   * which goes on to draw the studio's body whenever the reader turns it.
   */
  draw() {
    if (!this.isReady || this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = null;
      if (this.closer.dialog.open) return; // all are drawn again when it closes
      const until = performance.now() + FRAME_MS;
      for (const card of this.onScreen) {
        if (!this.stale.has(card)) continue;
        if (performance.now() > until) return this.draw();
        this.stale.delete(card);
        card.draw(this.place, this.body, this.studio);
      }
    });
  }

  clicked(k, event) {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    history.replaceState(null, "", `#person-${k}`);
    this.closer.open(k);
  }

  /** Open the person whom the address names, if it names one. */
  follow() {
    const match = /^#person-(\d+)$/.exec(location.hash);
    if (match && Number(match[1]) < about.people.length) this.closer.open(Number(match[1]));
    else if (this.closer.dialog.open) this.closer.dialog.close();
  }
}

/** One person in a dialog: both pictures large, the body in 3D, and the error over the steps. */
class CloserLook {
  constructor(album) {
    this.album = album;
    this.dialog = byId("closer");
    this.k = null;
    this.side = "estimate";
    const clicks = {
      previous: () => this.step(-1), next: () => this.step(1), close: () => this.dialog.close(),
      "turn-estimate": () => this.choose("estimate"), "turn-fit": () => this.choose("fit"),
      "look-front": () => this.orbit?.look(0, 0), "look-side": () => this.orbit?.look(90, 0),
      "look-top": () => this.orbit?.look(0, 90), earlier: () => album.goTo(album.place - 1),
      later: () => album.goTo(album.place + 1),
    };
    for (const [id, act] of Object.entries(clicks)) byId(id).addEventListener("click", act);
    this.dialog.addEventListener("keydown", (event) => this.pressed(event));
    this.dialog.addEventListener("close", () => this.closed());
    new ResizeObserver(() => hasOtherPixels(byId("orbit")) && this.show(this.k)).observe(byId("orbit"));
  }

  open(k) {
    this.k = k;
    if (!this.dialog.open) {
      this.dialog.showModal();
      this.dialog.focus();
    }
    const { title, place } = about.people[k];
    byId("person-title").textContent = title;
    byId("person-place").textContent = place;
    byId("fit-caption").textContent = byId("turn-fit").textContent = nameOfFit(k);
    this.overlays = SIDES.map((side) => new Overlay(k, side));
    this.overlays.forEach(({ square, side }) => byId(`closer-${side}`).replaceChildren(square));
    const isAlone = about.people[k].against === "";
    byId("closer-fit").parentElement.hidden = byId("turn-fit").hidden = isAlone;
    if (isAlone) this.side = "estimate";
    this.showError();
    this.look = true;
    this.show(k);
  }

  /** The error of this person over the steps. */
  showError() {
    const all = about.steps.map((_, s) => s).filter((s) => numberOf("error", s, this.k) !== null);
    byId("closer-error").replaceChildren();
    if (all.length === 0) return;
    const curve = { name: "error", steps: all.map((s) => about.steps[s]), values: all.map((s) => numberOf("error", s, this.k)) };
    const name = `Distance of the joints from the ${about.people[this.k].against}`;
    const chart = new LineChart({ name, unit: "mm", log: false, curves: [curve] }, new Pointer());
    chart.pointer.listeners.push((step) => step !== null && this.album.goTo(about.steps.indexOf(step)));
    byId("closer-error").append(chart.figure);
  }

  /** Draw it as of the album's step. */
  show(k) {
    if (k === null || !this.dialog.open || !this.album.isReady) return;
    const { place, body, studio } = this.album;
    const snapshot = snapshotOf(place, k);
    for (const overlay of this.overlays) overlay.draw(snapshot[overlay.side], body, studio);
    byId("closer-step").textContent = `step ${grouped(about.steps[place])}`;
    byId("closer-facts").textContent = describeFit(place, k);
    byId("earlier").disabled = place === 0;
    byId("later").disabled = place === about.steps.length - 1;
    this.turn(snapshot[this.side].params, body, studio);
    this.dialog.dataset.shown = `${k}-${about.steps[place]}`;
  }

  /** The body in 3D, drawn last: the studio holds one at a time. */
  turn(params, body, studio) {
    byId("model").hidden = studio === null;
    byId("turn-estimate").setAttribute("aria-pressed", this.side === "estimate" ? "true" : "false");
    byId("turn-fit").setAttribute("aria-pressed", this.side === "fit" ? "true" : "false");
    byId("orbit").hidden = params === null;
    if (studio === null || params === null) return;
    this.orbit ??= new Orbit(studio, byId("orbit"));
    studio.show(turnUpright(poseBody(body, params).vertices));
    if (this.look) this.orbit.look(30, 8);
    this.look = false;
    this.orbit.draw();
  }

  choose(side) {
    this.side = side;
    this.show(this.k);
  }

  step(by) {
    const k = this.k + by;
    if (k < 0 || k >= about.people.length) return;
    history.replaceState(null, "", `#person-${k}`);
    this.open(k);
  }

  pressed(event) {
    if (takesKeys(event.target) || event.altKey || event.ctrlKey || event.metaKey) return;
    const { album } = this;
    const acts = {
      ArrowLeft: () => this.step(-1), ArrowRight: () => this.step(1),
      ",": () => album.goTo(album.place - 1), ".": () => album.goTo(album.place + 1),
    };
    if (!(event.key in acts) || event.defaultPrevented) return;
    acts[event.key]();
    event.preventDefault();
  }

  /** Back to the person's card. */
  closed() {
    const card = this.album.cards[this.k];
    this.k = null;
    history.replaceState(null, "", "#");
    card.item.querySelector("a").focus();
    this.album.redraw();
  }
}
