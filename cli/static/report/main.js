// The page: what is chosen, in which order, and where the reader is.

const collator = new Intl.Collator("en", { numeric: true });

/** (N,) places of the pictures' names among all of them, as people order names. */
function rankImages() {
  const names = about.texts.image.map((name, i) => [name, i]);
  names.sort(([a], [b]) => collator.compare(a, b));
  const ranks = [];
  names.forEach(([, i], rank) => (ranks[i] = rank));
  return columns.image.map((image, i) => ranks[image] + columns.person[i] * 1e-7);
}

/** Orders that are not by a column of numbers: what they go by, a number for each person. */
const sortKeys = {
  image: rankImages,
  status: () => columns.status,
  row: () => columns.row,
};

/** Indices of people in an order, `descending` or not; those without a number come last. */
function sortPeople(people, name, descending) {
  const keys = sortKeys[name]?.() ?? columns[name];
  const sign = descending ? -1 : 1;
  return people.slice().sort((a, b) => {
    if (keys[a] === null || keys[b] === null) return (keys[a] === null) - (keys[b] === null);
    return sign * (keys[a] - keys[b]);
  });
}

class Page {
  constructor() {
    this.tools = byId("tools");
    this.gallery = new Gallery(byId("gallery"));
    this.person = new PersonView();
    const change = () => this.arrange();
    this.histograms = {
      error: new Histogram(byId("error-histogram"), "error", { factor: 100, unit: " %" }, change),
      sigma: new Histogram(byId("sigma-histogram"), "sigma", { factor: 1, unit: " mm" }, change),
    };
    this.order = indices;
    this.connect();
    this.arrange();
    whenLoaded.then(() => this.follow());
  }

  connect() {
    this.tools.elements.order.addEventListener("input", (event) => this.turnTo(event.target.value));
    this.tools.addEventListener("input", () => this.arrange());
    this.tools.addEventListener("submit", (event) => event.preventDefault());
    byId("direction").addEventListener("click", () => this.reverse());
    byId("save-marks").addEventListener("click", saveMarks);
    document.addEventListener("marks", () => this.marksChanged());
    document.addEventListener("keydown", (event) => this.pressed(event));
    addEventListener("hashchange", () => this.follow());
    this.person.dialog.addEventListener("close", () => this.closed());
  }

  /** Numbers begin with the largest, names and rows with the first. */
  turnTo(order) {
    byId("direction").setAttribute("aria-pressed", order in sortKeys ? "false" : "true");
  }

  get descending() {
    return byId("direction").getAttribute("aria-pressed") === "true";
  }

  reverse() {
    byId("direction").setAttribute("aria-pressed", this.descending ? "false" : "true");
    this.arrange();
  }

  /** People that pass all filters but the histograms'. */
  found() {
    const { words: text, status, marked: onlyMarked } = this.tools.elements;
    const wanted = text.value.toLowerCase();
    const statusWanted = about.texts.status.indexOf(status.value); // -1 for any
    const isWanted = onlyMarked.checked ? isMarked : () => true;
    return indices.filter((index) =>
      (wanted === "" || titleOf(index).toLowerCase().includes(wanted)) &&
      (statusWanted < 0 || columns.status[index] === statusWanted) && isWanted(index));
  }

  /** Show the people that pass the filters in the chosen order. */
  arrange() {
    const { order, picture } = this.tools.elements;
    const { error, sigma } = this.histograms;
    const found = this.found();
    const byError = found.filter((index) => error.keeps(index));
    const bySigma = found.filter((index) => sigma.keeps(index));
    const chosen = byError.filter((index) => sigma.keeps(index));
    error.show(bySigma); // each shows what the other one leaves
    sigma.show(byError);
    this.order = sortPeople(chosen, order.value, this.descending);
    this.gallery.show(this.order, picture.value);
    byId("count").textContent = chosen.length === about.count
      ? countPeople(about.count)
      : `${grouped(chosen.length)} of ${countPeople(about.count)}`;
    byId("nobody").hidden = chosen.length > 0;
    byId("chips").replaceChildren(...this.chips());
    this.showMarks();
  }

  /** Buttons that take the histograms' filters back. */
  chips() {
    return Object.values(this.histograms).filter((histogram) => histogram.range).map((histogram) => {
      const title = histogram === this.histograms.error ? "error" : "σ";
      const clear = () => {
        histogram.clear();
        this.arrange();
      };
      return element("button", { type: "button", class: "chip", click: clear,
        "aria-label": `Take the filter back: ${title} ${histogram.words}` }, `${title} ${histogram.words} ×`);
    });
  }

  showMarks() {
    byId("save-marks").disabled = marked.size === 0;
    byId("save-marks").textContent = `Save marks (${marked.size})`;
  }

  marksChanged() {
    if (this.tools.elements.marked.checked && !this.person.dialog.open) this.arrange();
    else this.showMarks();
  }

  /** Open the person whom the address names, if it names one. */
  follow() {
    const match = /^#person-(\d+)$/.exec(location.hash);
    const index = match ? columns.row.indexOf(Number(match[1])) : -1;
    if (index >= 0) this.person.show(index, this.order);
    else if (this.person.dialog.open) this.person.dialog.close();
  }

  /** Back to the gallery, where the last person stands. */
  closed() {
    const last = this.person.index;
    history.replaceState(null, "", "#");
    if (this.tools.elements.marked.checked) this.arrange();
    const place = this.order.indexOf(last);
    if (place >= 0) this.gallery.focus(place);
  }

  pressed(event) {
    if (event.key !== "/" || takesKeys(event.target) || this.person.dialog.open) return;
    this.tools.elements.words.focus();
    event.preventDefault();
  }
}

if (about.count > 0) new Page();
