// The little that is needed to build and update elements. Text is always text, never markup.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** An element: h("button", { type: "button", onclick: f }, "Copy"). */
export function h(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same for a part of a drawing. */
export function s(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== undefined && child !== null));
  return element;
}

/** Sets a text only if it differs: what did not change stays selected, and is not read out again. */
export function text(element, value) {
  const target = typeof element === "string" ? byId(element) : element;
  if (target.textContent !== value) target.textContent = value;
}

/** Sets or removes an attribute, only if it differs. */
export function attribute(element, name, value) {
  const wanted = value === undefined || value === null || value === false ? null : String(value);
  if (element.getAttribute(name) === wanted) return;
  if (wanted === null) element.removeAttribute(name);
  else element.setAttribute(name, wanted);
}

/**
 * Makes the rows of a table these. A cell is { text, kind, title, link }; the first one of a row is its header.
 * Rows and cells stay where they are, so that a selection or the focus survives.
 */
export function rows(body, wanted) {
  while (body.rows.length > wanted.length) body.deleteRow(-1);
  wanted.forEach((cells, i) => row(body.rows[i] ?? body.insertRow(), cells));
}

function row(tr, cells) {
  cells.forEach((cell, i) => {
    const td = tr.cells[i] ?? tr.appendChild(i === 0 ? h("th", { scope: "row" }) : h("td"));
    attribute(td, "class", cell.kind);
    attribute(td, "title", cell.title);
    content(td, cell);
  });
}

function content(td, cell) {
  if (!cell.link) {
    text(td, cell.text);
    return;
  }
  const a = td.querySelector("a") ?? h("a");
  if (a.parentNode !== td) td.replaceChildren(a);
  attribute(a, "href", cell.link);
  text(a, cell.text);
}

/** Says something to those who listen to the page instead of seeing it. */
export function announce(words) {
  text("announce", words);
}
