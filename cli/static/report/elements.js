// Elements and numbers: what every other file builds the page from.

const SVG = "http://www.w3.org/2000/svg";

/** The element of the page with this id. */
function byId(id) {
  return document.getElementById(id);
}

/**
 * A new element. Strings among the children become text, never markup: names of files are hostile.
 * @param {string} tag
 * @param {Object} attributes a function is a listener; null and false leave an attribute out
 * @param {...(Node|string)} children
 */
function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same of an SVG element. */
function svgElement(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

/** A number with some decimals, and a dash for none. */
function fixed(value, decimals = 1, unit = "") {
  return value === null || !Number.isFinite(value) ? "–" : value.toFixed(decimals) + unit;
}

/** A share as a percentage, and a dash for none. */
function percent(share) {
  return share === null ? "–" : fixed(100 * share, 1, " %");
}

/** Words of a name such as left_knee. */
function words(name) {
  return name.replaceAll("_", " ");
}

const wholeNumbers = new Intl.NumberFormat("en");

/** A whole number such as 10,000. */
function grouped(count) {
  return wholeNumbers.format(count);
}

/** "1 person", "2 people". */
function countPeople(count) {
  return `${grouped(count)} ${count === 1 ? "person" : "people"}`;
}

/** Whether keys pressed here are meant for the control itself. */
function takesKeys(target) {
  return target instanceof Element && target.matches("input:not([type=checkbox]), select, textarea");
}
