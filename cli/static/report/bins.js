// Bars that count: histograms of the fits, and epochs.

/** A histogram `{name, unit, low, width, counts}` as a figure. */
function makeHistogram({ name, unit, low, width, counts }) {
  const decimals = Math.max(0, Math.ceil(-Math.log10(width) - 1e-9));
  const edge = (bin) => fixed(low + bin * width, decimals, unit && ` ${unit}`);
  const span = (bin) =>
    bin === counts.length - 1 ? `${edge(bin)} and more` : `${edge(bin)} to ${edge(bin + 1)}`;
  return makeBars(name, counts.map((count, bin) => ({ count, text: span(bin) })), [edge(0), span(counts.length - 1)]);
}

/** Fits by the epoch they were made in, [epoch, count] each, the epochs without one in between. */
function makeEpochs(epochs) {
  const counts = new Map(epochs);
  const last = Math.max(...counts.keys());
  const together = Math.ceil((last + 1) / 60); // epochs in a bar
  const bars = Array.from({ length: Math.floor(last / together) + 1 }, (_, bar) => {
    const [first, end] = [bar * together, bar * together + together - 1];
    let count = 0;
    for (let epoch = first; epoch <= end; epoch++) count += counts.get(epoch) ?? 0;
    return { count, text: together === 1 ? `epoch ${first}` : `epochs ${first} to ${end}` };
  });
  return makeBars("Best fits of the loop, by the epoch that made them", bars, ["epoch 0", `epoch ${last}`]);
}

/** Bars `{count, text}` with what stands below their ends. */
function makeBars(name, bars, [left, right]) {
  const fullest = Math.max(...bars.map(({ count }) => count), 1);
  const total = bars.reduce((sum, { count }) => sum + count, 0);
  const most = bars.reduce((best, bar) => (bar.count > best.count ? bar : best));
  const drawn = bars.map(({ count, text }) => {
    const bar = element("i", { class: "left" });
    bar.style.height = `${Math.max((100 * count) / fullest, count > 0 ? 3 : 0)}%`;
    return element("span", { class: "bar", title: `${text}: ${countPeople(count)}` }, bar);
  });
  return element("figure", { class: "chart" },
    element("figcaption", {}, element("h3", {}, name)),
    element("div", { class: "bars", role: "img",
      "aria-label": `${name}: ${countPeople(total)}, most of them at ${most.text} (${grouped(most.count)})` }, ...drawn),
    element("div", { class: "scale", "aria-hidden": true }, element("span", {}, left), element("span", {}, right)));
}
