// The page of a training run: what stands where.

const pointer = new Pointer();
const charts = (list) => list.map((chart) => new LineChart(chart, pointer).figure);

byId("charts").append(...charts(about.charts));
byId("store-charts")?.append(...charts(about.storeCharts),
  ...(about.epochs.length ? [makeEpochs(about.epochs)] : []), ...about.histograms.map(makeHistogram));
if (about.people.length > 0) new AlbumView(pointer);
