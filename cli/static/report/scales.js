// Axes: where values lie, which of them are written beside, and how.

/** A round number of at least so much: 1, 2 or 5 times a power of ten. */
function roundUp(least) {
  const power = 10 ** Math.floor(Math.log10(least));
  return power * ([1, 2, 5].find((step) => step * power >= least * (1 - 1e-9)) ?? 10);
}

/** A range of values on a linear axis of some pixels; `pixelOf` and back by `valueAt`. */
class LinearScale {
  constructor(low, high, from, to) {
    Object.assign(this, { low, high: high > low ? high : low + (Math.abs(low) || 1) * 1e-3, from, to });
  }

  pixelOf(value) {
    return this.from + ((value - this.low) / (this.high - this.low)) * (this.to - this.from);
  }

  valueAt(pixel) {
    return this.low + ((pixel - this.from) / (this.to - this.from)) * (this.high - this.low);
  }

  /** About so many round values. */
  ticks(count) {
    const step = roundUp((this.high - this.low) / count);
    const first = Math.ceil(this.low / step - 1e-9);
    const last = Math.floor(this.high / step + 1e-9);
    return Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
  }
}

/** The same of values above zero on a logarithmic axis. */
class LogScale extends LinearScale {
  constructor(low, high, from, to) {
    super(Math.log10(low), Math.log10(high), from, to);
  }

  pixelOf(value) {
    return super.pixelOf(Math.log10(value));
  }

  valueAt(pixel) {
    return 10 ** super.valueAt(pixel);
  }

  /** Powers of ten, or where there are few of them also their doubles and halves. */
  ticks(count) {
    const decades = [];
    for (let power = Math.floor(this.low); power <= Math.ceil(this.high); power++) decades.push(power);
    const every = Math.max(1, Math.ceil(decades.length / count));
    const parts = decades.length - 2 <= count / 2 ? [1, 2, 5] : [1];
    const values = decades.filter((power) => power % every === 0)
      .flatMap((power) => parts.map((part) => part * 10 ** power));
    const inside = values.filter((value) => {
      const at = Math.log10(value);
      return at >= this.low - 1e-9 && at <= this.high + 1e-9;
    });
    return inside.length > 1 ? inside : [10 ** this.low, 10 ** this.high];
  }
}

/** A name as a title: its words, the first with a capital letter. */
function titled(name) {
  return words(name).replace(/^[a-z]/, (letter) => letter.toUpperCase());
}

/** A value in few characters: 1,234, 0.052, 3.1e-7. */
function concise(value, digits = 4) {
  if (value === null || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e7)) return value.toExponential(digits - 2).replace(/\.?0+e/, "e");
  if (size >= 1000) return grouped(Math.round(value));
  return String(Number(value.toPrecision(digits)));
}

/** The same with the unit; shares of 1 as percentages. */
function withUnit(value, unit, digits = 4) {
  if (value === null) return "–";
  return unit === "%" ? `${concise(100 * value, 3)} %` : `${concise(value, digits)}${unit && ` ${unit}`}`;
}
