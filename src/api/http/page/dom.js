// The little that is needed to build and update elements. Text is always text, never markup.

import { UNKNOWN } from "./format.js";

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
  const labels = [...body.parentNode.tHead.rows[0].cells].map((cell) => cell.textContent);
  wanted.forEach((cells, i) => row(body.rows[i] ?? body.insertRow(), cells, labels));
}

/** Each cell knows its column: on a narrow screen there is no head above it. */
function row(tr, cells, labels) {
  cells.forEach((cell, i) => {
    const td = tr.cells[i] ?? tr.appendChild(i === 0 ? h("th", { scope: "row" }) : h("td"));
    attribute(td, "class", cell.kind);
    attribute(td, "title", cell.title);
    attribute(td, "data-label", labels[i]);
    attribute(td, "data-unknown", cell.text === UNKNOWN);
    content(td, cell);
  });
}

function content(td, cell) {
  if (!cell.link) {
    if (td.querySelector("a")) td.replaceChildren();
    text(td, cell.text);
    return;
  }
  const a = td.querySelector("a") ?? h("a");
  if (a.parentNode !== td) td.replaceChildren(a);
  attribute(a, "href", cell.link);
  text(a, cell.text);
}

/** How long a button says that it has copied. */
const COPIED_MS = 2000;

/** A command, and a button that copies it. `what`: "the fix for ETCD_001". */
export function copyable(words, what) {
  const code = h("code", {}, words);
  const button = h("button", { type: "button", "aria-label": `Copy ${what}` }, "Copy");
  button.addEventListener("click", () => copy(code, button));
  return h("div", { class: "fix" }, h("pre", { tabindex: 0, "aria-label": what }, code), button);
}

/** The buttons in the document, each of which copies what it names. */
export function copyButtons() {
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", () => copy(byId(button.dataset.copy), button));
  }
}

async function copy(code, button) {
  const done = (await toClipboard(code.textContent)) || bySelection(code);
  // What is read out must be what is seen.
  button.dataset.label ??= button.getAttribute("aria-label");
  attribute(button, "aria-label", null);
  text(button, done ? "Copied" : "Press Ctrl+C");
  announce(done ? "Copied." : "It is selected; press Ctrl and C.");
  setTimeout(() => {
    text(button, "Copy");
    attribute(button, "aria-label", button.dataset.label);
  }, COPIED_MS);
}

/** Browsers offer it to pages on https and loopback only. */
async function toClipboard(words) {
  try {
    await navigator.clipboard.writeText(words);
    return true;
  } catch {
    return false;
  }
}

function bySelection(code) {
  const selection = getSelection();
  selection.selectAllChildren(code);
  return document.execCommand("copy");
}

/** Says something to those who listen to the page instead of seeing it. */
export function announce(words) {
  // The same words again are news too.
  byId("announce").textContent = "";
  text("announce", words);
}
