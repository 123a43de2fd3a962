// Curves over the steps of a run, which the reader goes along by pointer or by keys.

const CHART_HEIGHT = 216; // pixels
const MARGIN = { left: 56, right: 14, top: 10, bottom: 26 };
const NUM_COLORS = 8; // of the style; further curves are dashed

/** Index of the value of a rising list that is nearest to `wanted`. */
function nearestIndex(sorted, wanted) {
  let [low, high] = [0, sorted.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < wanted) low = middle;
    else high = middle;
  }
  return wanted - sorted[low] <= sorted[high] - wanted ? low : high;
}

/** The step that all charts point at; none means the last. */
class Pointer {
  constructor() {
    this.step = null;
    this.listeners = [];
  }

  pointAt(step) {
    if (step === this.step) return;
    this.step = step;
    for (const listener of this.listeners) listener(step);
  }
}

/** A chart of curves `{name, steps, values}` with a common scale. */
class LineChart {
  /**
   * @param {{name: string, unit: string, log: boolean, curves: Object[]}} chart
   * @param {Pointer} pointer shared by the charts of a page
   */
  constructor(chart, pointer) {
    Object.assign(this, { chart, pointer, hidden: new Set(), log: chart.log });
    this.steps = [...new Set(chart.curves.flatMap((curve) => curve.steps))].sort((a, b) => a - b);
    this.canLog = chart.unit !== "%" && chart.curves.every(({ values }) => values.every((value) => value > 0));
    this.legend = element("div", { class: "legend" }, ...chart.curves.map((_, i) => this.makeKey(i)));
    this.plot = svgElement("svg", {
      class: "plot", height: CHART_HEIGHT, tabindex: 0, role: "slider", "aria-label": this.describe(),
      "aria-valuemin": this.steps[0], "aria-valuemax": this.steps.at(-1),
      pointermove: (event) => this.moved(event), pointerdown: (event) => this.moved(event),
      pointerleave: () => pointer.pointAt(null), keydown: (event) => this.pressed(event),
      blur: () => pointer.pointAt(null),
    });
    this.figure = element("figure", { class: "chart" },
      element("figcaption", {}, element("h3", {}, titled(chart.name)), ...this.makeSwitch()),
      this.legend, this.plot);
    pointer.listeners.push(() => this.point());
    new ResizeObserver(() => this.draw()).observe(this.figure);
  }

  /** The chart in a sentence. */
  describe() {
    const parts = this.chart.curves.map(({ name, values }) => {
      const [first, last] = [values[0], values.at(-1)].map((value) => withUnit(value, this.chart.unit));
      return `${words(name)} from ${first} to ${last}`;
    });
    return `${words(this.chart.name)}: ${parts.slice(0, 6).join(", ")}`;
  }

  makeSwitch() {
    if (!this.canLog) return [];
    const change = (event) => {
      this.log = event.target.checked;
      this.draw();
    };
    const box = element("input", { type: "checkbox", checked: this.log, change,
      "aria-label": `Logarithmic scale of ${words(this.chart.name)}` });
    return [element("label", { class: "check" }, box, " log")];
  }

  /** The name of a curve and its value; a click hides it. */
  makeKey(i) {
    const { name } = this.chart.curves[i];
    const toggle = () => {
      if (!this.hidden.delete(i)) this.hidden.add(i);
      this.draw();
    };
    return element("button", { type: "button", class: `curve-key ${colorOf(i)}`, "aria-pressed": "true",
      title: `Show or hide ${words(name)}`, click: toggle },
    element("i", { "aria-hidden": true }), element("bdi", {}, words(name)), " ", element("b"));
  }

  get shown() {
    return this.chart.curves.map((curve, i) => ({ ...curve, i })).filter(({ i }) => !this.hidden.has(i));
  }

  /** The axes for the width there is. */
  scale(width) {
    const values = this.shown.flatMap((curve) => curve.values);
    let [low, high] = [Math.min(...values), Math.max(...values)];
    if (values.length === 0) [low, high] = [0, 1];
    const [bottom, top] = [CHART_HEIGHT - MARGIN.bottom, MARGIN.top];
    const isLog = this.log && this.canLog && values.length > 0;
    const Scale = isLog ? LogScale : LinearScale;
    if (isLog && low === high) [low, high] = [low / 2, high * 2];
    if (!isLog) {
      const margin = 0.04 * (high - low || Math.abs(high) || 1);
      [low, high] = [low >= 0 ? Math.max(0, low - margin) : low - margin, high + margin];
      if (this.chart.unit === "%") [low, high] = [0, Math.min(1, high)];
    }
    this.x = new LinearScale(this.steps[0], this.steps.at(-1), MARGIN.left, width - MARGIN.right);
    this.y = new Scale(low, high, bottom, top);
  }

  draw() {
    const width = Math.floor(this.figure.clientWidth);
    if (width < MARGIN.left + MARGIN.right + 40) return;
    this.scale(width);
    this.plot.setAttribute("width", width);
    this.plot.setAttribute("viewBox", `0 0 ${width} ${CHART_HEIGHT}`);
    this.cursor = svgElement("g", { class: "cursor" });
    this.plot.replaceChildren(...this.drawAxes(width), ...this.shown.map((curve) => this.drawCurve(curve)), this.cursor);
    [...this.legend.children].forEach((key, i) => {
      key.setAttribute("aria-pressed", this.hidden.has(i) ? "false" : "true");
    });
    this.point();
  }

  drawAxes(width) {
    const bottom = CHART_HEIGHT - MARGIN.bottom;
    const parts = [];
    for (const value of this.y.ticks(5)) {
      const y = this.y.pixelOf(value);
      parts.push(svgElement("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y, y2: y }));
      parts.push(svgElement("text", { x: MARGIN.left - 8, y: y + 4, "text-anchor": "end" },
        withUnit(value, this.chart.unit === "%" ? "%" : "", 3)));
    }
    for (const step of this.x.ticks(Math.max(2, Math.min(6, Math.floor(width / 90))))) {
      if (!Number.isInteger(step)) continue;
      parts.push(svgElement("text", { x: this.x.pixelOf(step), y: bottom + 18, "text-anchor": "middle" }, grouped(step)));
    }
    return parts;
  }

  drawCurve({ steps, values, i }) {
    const at = (k) => `${this.x.pixelOf(steps[k]).toFixed(1)} ${this.y.pixelOf(values[k]).toFixed(1)}`;
    const path = svgElement("path", { class: `curve ${colorOf(i)}`,
      d: steps.map((_, k) => (k === 0 ? "M" : "L") + at(k)).join("") });
    if (steps.length > 40) return path;
    const dots = steps.map((step, k) =>
      svgElement("circle", { cx: this.x.pixelOf(step), cy: this.y.pixelOf(values[k]), r: 2.4 }));
    return svgElement("g", { class: `dots ${colorOf(i)}` }, path, ...dots);
  }

  /** Show the values at the step that is pointed at. */
  point() {
    const { step } = this.pointer;
    const wanted = step ?? this.steps.at(-1);
    const marks = [];
    const read = [];
    for (const { name, steps, values, i } of this.chart.curves.map((curve, i) => ({ ...curve, i }))) {
      const k = nearestIndex(steps, wanted);
      this.legend.children[i].lastChild.textContent = withUnit(values[k], this.chart.unit);
      if (this.hidden.has(i) || !this.x) continue;
      read.push(`${words(name)} ${withUnit(values[k], this.chart.unit)}`);
      marks.push(svgElement("circle", { class: colorOf(i), r: 4, cx: this.x.pixelOf(steps[k]), cy: this.y.pixelOf(values[k]) }));
    }
    this.plot.setAttribute("aria-valuenow", wanted);
    this.plot.setAttribute("aria-valuetext", `step ${grouped(wanted)}: ${read.join(", ")}`);
    if (!this.x || !this.cursor) return;
    this.cursor.replaceChildren(...(step === null ? [] : [...this.drawLine(wanted), ...marks]));
  }

  drawLine(step) {
    const x = this.x.pixelOf(step);
    const isRight = x > (this.x.from + this.x.to) / 2;
    return [
      svgElement("line", { x1: x, x2: x, y1: MARGIN.top, y2: CHART_HEIGHT - MARGIN.bottom }),
      svgElement("text", { x: x + (isRight ? -6 : 6), y: MARGIN.top + 8, "text-anchor": isRight ? "end" : "start" },
        `step ${grouped(step)}`),
    ];
  }

  moved(event) {
    if (!this.x) return;
    const wanted = this.x.valueAt(event.clientX - this.plot.getBoundingClientRect().left);
    this.pointer.pointAt(this.steps[nearestIndex(this.steps, wanted)]);
  }

  /** Arrows go from one logged step to the next, with Page Up and Down a tenth of them at once. */
  pressed(event) {
    const here = nearestIndex(this.steps, this.pointer.step ?? this.steps.at(-1));
    const far = Math.max(1, Math.round(this.steps.length / 10));
    const targets = {
      ArrowLeft: here - 1, ArrowDown: here - 1, ArrowRight: here + 1, ArrowUp: here + 1,
      PageDown: here - far, PageUp: here + far, Home: 0, End: this.steps.length - 1,
    };
    if (event.key === "Escape") this.pointer.pointAt(null);
    if (!(event.key in targets)) return;
    const place = Math.min(Math.max(targets[event.key], 0), this.steps.length - 1);
    this.pointer.pointAt(this.steps[place]);
    event.preventDefault();
  }
}

function colorOf(i) {
  return `color-${i % NUM_COLORS}${i >= NUM_COLORS ? " dashed" : ""}`;
}
