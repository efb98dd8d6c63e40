/** Makes elements; what comes from data is text in them, never markup. */

export const byId = (id) => document.getElementById(id);

/** Return an element of HTML with attributes, listeners (`onclick`) and children. */
export function html(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** Return an element of SVG. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

/** Return a number with at most six digits, a dash for none. */
export function shown(number) {
  if (number === null || Number.isNaN(number)) return "–";
  const size = Math.abs(number);
  return size && (size < 1e-4 || size >= 1e9)
    ? number.toExponential(3)
    : number.toLocaleString("en", { maximumSignificantDigits: 6 });
}

/** Return a loss with five digits, so that a column of them can be compared. */
export function digits(number) {
  const size = Math.abs(number);
  if (!size || size < 1e-4 || size >= 1e9) return shown(number);
  return number.toLocaleString("en", { minimumSignificantDigits: 5, maximumSignificantDigits: 5 });
}

/** Return a count with its unit. */
export function counted(count, unit, units = `${unit}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? unit : units}`;
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}
