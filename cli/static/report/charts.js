// Histograms that filter, and bars.

const NUM_BINS = 24;

/** Edges of equal bins of a round width; the last bin takes all that lie beyond. */
function chooseBins(values) {
  const sorted = values.filter((value) => value !== null).sort((a, b) => a - b);
  if (sorted.length === 0) return null;
  const high = sorted[Math.floor(0.98 * (sorted.length - 1))] || sorted.at(-1) || 1;
  const power = 10 ** Math.floor(Math.log10(high / NUM_BINS));
  const width = power * [1, 2, 5, 10].find((step) => step * power * NUM_BINS >= high);
  return { width, last: Math.min(NUM_BINS - 1, Math.ceil(high / width)) };
}

/** Which bin a value falls into; -1 for none. */
function binOf(value, { width, last }) {
  return value === null ? -1 : Math.min(Math.floor(value / width), last);
}

/**
 * A histogram of a column, each bar a button that keeps the people of its bin alone. Another click
 * on it lets all in again, and one with the shift key takes in all bars up to it.
 */
class Histogram {
  /**
   * @param {HTMLElement} place with a title of its own
   * @param {string} column
   * @param {{factor: number, unit: string}} shown how values are written
   * @param {function()} onChange called when another range was chosen
   */
  constructor(place, column, shown, onChange) {
    this.values = columns[column] ?? [];
    this.bins = chooseBins(this.values);
    this.range = null; // first and last bin
    this.shown = shown;
    this.onChange = onChange;
    place.hidden = this.bins === null;
    if (this.bins === null) return;
    this.totals = this.count(indices);
    this.bars = this.totals.map((_, bin) => this.makeBar(bin));
    place.querySelector(".bars").append(...this.bars);
    place.querySelector(".scale").append(
      element("span", {}, this.edge(0)), element("span", {}, this.span(this.bins.last, this.bins.last)));
  }

  /** The lower edge of a bin, with as many decimals as tell it from the next. */
  edge(bin) {
    const width = this.bins.width * this.shown.factor;
    const decimals = Math.max(0, Math.ceil(-Math.log10(width) - 1e-9));
    return fixed(bin * width, decimals, this.shown.unit);
  }

  /** Some bins in words. */
  span(first, last) {
    return last === this.bins.last
      ? `${this.edge(first)} and more` : `${this.edge(first)} to ${this.edge(last + 1)}`;
  }

  /** People of each bin. */
  count(people) {
    const counts = Array(this.bins.last + 1).fill(0);
    for (const index of people) {
      const bin = binOf(this.values[index], this.bins);
      if (bin >= 0) counts[bin] += 1;
    }
    return counts;
  }

  makeBar(bin) {
    return element("button",
      { type: "button", "aria-pressed": "false", click: (event) => this.choose(bin, event.shiftKey) },
      element("i", { class: "all" }), element("i", { class: "left" }));
  }

  choose(bin, extend) {
    const [first, last] = this.range ?? [];
    if (extend && this.range) this.range = [Math.min(first, bin), Math.max(last, bin)];
    else this.range = first === bin && last === bin ? null : [bin, bin];
    this.onChange();
  }

  clear() {
    this.range = null;
  }

  /** Whether a person is in the chosen range. */
  keeps(index) {
    if (!this.range) return true;
    const bin = binOf(this.values[index], this.bins);
    return bin >= this.range[0] && bin <= this.range[1];
  }

  /** The chosen range in words. */
  get words() {
    return this.span(...this.range);
  }

  /** Show how many of the people that the other filters leave fall into each bin. */
  show(people) {
    if (!this.bins) return;
    const fullest = Math.max(...this.totals);
    const height = (count) => `${Math.max((100 * count) / fullest, count > 0 ? 3 : 0)}%`;
    this.count(people).forEach((count, bin) => {
      const [all, left] = this.bars[bin].children;
      all.style.height = height(this.totals[bin]);
      left.style.height = height(count);
      const chosen = this.range && bin >= this.range[0] && bin <= this.range[1];
      this.bars[bin].setAttribute("aria-pressed", chosen ? "true" : "false");
      this.bars[bin].classList.toggle("out", Boolean(this.range) && !chosen);
      this.bars[bin].title = `${this.span(bin, bin)}: ${countPeople(count)}`;
      this.bars[bin].setAttribute("aria-label", this.bars[bin].title);
    });
  }
}

/**
 * Bars, one for each name, longest at the fullest.
 * @param {HTMLElement} place a list
 * @param {{name: string, value: ?number, note: string}[]} entries
 * @param {function(?number)} onPoint told the entry that is pointed at
 */
function showBars(place, entries, unit, onPoint = () => {}) {
  const largest = Math.max(...entries.map(({ value }) => value ?? 0), 1e-9);
  place.replaceChildren(...entries.map(({ name, value, note }, i) => {
    const bar = element("i");
    bar.style.width = `${(100 * (value ?? 0)) / largest}%`;
    return element("li", { pointerenter: () => onPoint(i), pointerleave: () => onPoint(null) },
      element("span", { class: "name" }, words(name)), element("span", { class: "track" }, bar),
      element("span", { class: "value" }, value === null ? note : fixed(value, 1, unit)));
  }));
}
