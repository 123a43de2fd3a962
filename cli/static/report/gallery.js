// The gallery: of any number of people only those on the screen are elements.

const MIN_CARD = 176; // pixels
const GAP = 16;
const CAPTION = 62;
const OVERSCAN = 2; // rows above and below the screen

/** A grid of people in a given order, moved through by keys and opened by links. */
class Gallery {
  /** @param {HTMLElement} list which holds nothing else */
  constructor(list) {
    this.list = list;
    this.order = [];
    this.kind = "overlay";
    this.active = 0; // position that the keyboard is at
    this.cards = new Map(); // position -> element
    const update = () => requestAnimationFrame(() => this.update());
    addEventListener("scroll", update, { passive: true });
    new ResizeObserver(update).observe(list);
    list.addEventListener("keydown", (event) => this.pressed(event));
    list.addEventListener("focusin", (event) => this.focused(event.target));
    document.addEventListener("marks", (event) => this.replace(event.detail));
  }

  /** Show people (indices) in this order, by one kind of their pictures. */
  show(order, kind) {
    this.order = order;
    this.kind = kind;
    this.active = 0;
    this.refresh();
  }

  /** Make all cards again. */
  refresh() {
    const hadFocus = this.list.contains(document.activeElement);
    this.cards.forEach((card) => card.remove());
    this.cards.clear();
    this.update();
    if (hadFocus) this.focus(this.active);
  }

  /** Make the card of one person again. */
  replace(index) {
    const position = this.order.indexOf(index);
    const card = this.cards.get(position);
    if (!card) return;
    const hadFocus = card.contains(document.activeElement);
    card.remove();
    this.cards.delete(position);
    this.update();
    if (hadFocus) this.focus(position);
  }

  /** Columns, and the width and height of a card, for the width there is. */
  measure() {
    const width = this.list.clientWidth;
    const count = Math.max(2, Math.floor((width + GAP) / (MIN_CARD + GAP)));
    const side = (width - GAP * (count - 1)) / count;
    return { count, side, height: side + CAPTION };
  }

  /** Add the cards that came onto the screen and remove those that left it. */
  update() {
    const { count, side, height } = this.measure();
    const step = height + GAP;
    this.list.style.height = `${Math.ceil(this.order.length / count) * step}px`;
    const top = -this.list.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(top / step) - OVERSCAN) * count;
    const end = Math.min(this.order.length, (Math.ceil((top + innerHeight) / step) + OVERSCAN) * count);
    for (const [position, card] of this.cards) {
      if ((position < first || position >= end) && position !== this.active) {
        card.remove();
        this.cards.delete(position);
      }
    }
    const wanted = new Set([this.active]);
    for (let position = first; position < end; position++) wanted.add(position);
    for (const position of wanted) {
      if (position >= this.order.length) continue;
      const card = this.cards.get(position) ?? this.add(position);
      card.style.width = `${side}px`;
      card.style.height = `${height}px`;
      const [column, row] = [position % count, Math.floor(position / count)];
      card.style.transform = `translate(${column * (side + GAP)}px, ${row * step}px)`;
    }
  }

  add(position) {
    const card = makeCard(this.order[position], this.kind);
    card.setAttribute("aria-setsize", this.order.length);
    card.setAttribute("aria-posinset", position + 1);
    card.dataset.position = position;
    card.firstChild.tabIndex = position === this.active ? 0 : -1;
    // In the order of the page, so that readers of the screen go through it so.
    const after = [...this.list.children].find((other) => Number(other.dataset.position) > position);
    this.list.insertBefore(card, after ?? null);
    this.cards.set(position, card);
    return card;
  }

  /** Bring the card at a position onto the screen and go there. */
  focus(position) {
    if (this.order.length === 0) return;
    const before = this.cards.get(this.active);
    if (before) before.firstChild.tabIndex = -1;
    this.active = Math.min(Math.max(position, 0), this.order.length - 1);
    this.update();
    const link = this.cards.get(this.active).firstChild;
    link.tabIndex = 0;
    link.focus({ preventScroll: true });
    link.scrollIntoView({ block: "nearest" });
  }

  focused(target) {
    const position = Number(target.closest("li")?.dataset.position ?? this.active);
    const before = this.cards.get(this.active);
    if (before && position !== this.active) before.firstChild.tabIndex = -1;
    this.active = position;
    this.cards.get(position).firstChild.tabIndex = 0;
  }

  pressed(event) {
    const { count } = this.measure();
    const end = this.order.length - 1;
    const targets = {
      ArrowLeft: this.active - 1, ArrowRight: this.active + 1, ArrowUp: this.active - count,
      ArrowDown: this.active + count, Home: 0, End: end,
    };
    if (event.key in targets && !event.altKey && !event.ctrlKey && !event.metaKey) {
      this.focus(targets[event.key]);
    } else if (event.key === "b") {
      toggleMark(this.order[this.active]);
    } else {
      return;
    }
    event.preventDefault();
  }
}

/** A person in the gallery: a picture, the numbers and the name. */
function makeCard(index, kind) {
  const path = pictureOf(index, kind);
  const picture = path === null
    ? element("span", { class: "picture" })
    : element("span", { class: "picture" },
      element("img", { src: path, alt: "", loading: "lazy", decoding: "async" }));
  if (path === null) whenLoaded.then(() => picture.append(drawSkeleton(recordOf(index))));
  if (isMarked(index)) picture.append(element("span", { class: "badge" }, "bad"));
  const known = columns.errorPx[index] !== null;
  const numbers = known
    ? [element("b", {}, percent(columns.error[index])),
      element("span", {}, fixed(columns.errorPx[index], 1, " px")),
      element("span", {}, `σ ${fixed(columns.sigma[index], 0, " mm")}`)]
    : [element("b", {}, words(textOf("status", index)))];
  return element("li", { class: `card ${gradeOf(index)}${isMarked(index) ? " marked" : ""}` },
    element("a", { href: `#person-${columns.row[index]}`, title: titleOf(index) }, picture,
      element("span", { class: "numbers" }, ...numbers),
      element("bdi", { class: "name" }, shortTitleOf(index))));
}
