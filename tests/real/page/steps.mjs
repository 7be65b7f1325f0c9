// What a test can ask of the open page.

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];

export const steps = {
  /** Everything that a person would read, by name. */
  texts: ({ page }) => page.evaluate(readPage),

  /** Waits until the element that `selector` names holds this text, and answers with all of its text. */
  async wait({ page }, { selector, text, timeout_ms }) {
    const found = page.locator(selector).filter({ hasText: text }).first();
    await found.waitFor({ state: "attached", timeout: timeout_ms });
    return found.textContent();
  },

  /** Answers requests for this path with this document, or this stream if it is a text, from the next request on. */
  fulfil({ page }, { path, body }) {
    const answer = typeof body === "string" ? { body, contentType: "text/event-stream" } : { json: body };
    return page.route(`**${path}*`, (route) => route.fulfill(answer));
  },

  /** Opens another page. */
  open: ({ page }, { url }) => page.goto(url).then(() => null),

  /** Loads the page again. */
  reload: ({ page }) => page.reload(),

  async look({ page }, { width, height, scheme }) {
    await page.emulateMedia({ colorScheme: scheme });
    await page.setViewportSize({ width, height });
    // Two frames: what follows a change of size has been drawn.
    await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
    return page.evaluate(() => ({ content: document.documentElement.scrollWidth, window: innerWidth }));
  },

  /** What is on paper, and how many bytes of it there are as PDF. */
  async print({ page }) {
    await page.emulateMedia({ media: "print" });
    const shown = await page.evaluate(() => [...document.querySelectorAll("main > *, .top, footer")].filter((e) => e.checkVisibility()).map((e) => e.id || e.className || e.tagName));
    const bytes = (await page.pdf()).length;
    await page.emulateMedia({ media: "screen" });
    return { shown, bytes };
  },

  /** What was copied, as it is pasted into this field. */
  async paste({ page }, { selector }) {
    const field = page.locator(selector).first();
    await field.fill("");
    await field.focus();
    await page.keyboard.press("Control+V");
    return field.inputValue();
  },

  /** Where the links in this element lead. */
  links: ({ page }, { selector }) => page.locator(`${selector} a`).evaluateAll((links) => links.map((a) => [a.textContent, a.href])),

  count: ({ page }, { selector, text }) => page.locator(selector).filter({ hasText: text }).count(),

  click: ({ page }, { selector }) => page.locator(selector).first().click(),

  /** Types this text into a field. */
  type: ({ page }, { selector, text }) => page.locator(selector).first().fill(text),

  /** Spoils the page, to see that somebody notices. */
  spoil: ({ page }, { selector, attribute }) => page.evaluate(([s, a]) => document.querySelector(s).removeAttribute(a), [selector, attribute]),

  /** Presses these keys, and tells where the focus is then and what the page says of the chosen change. */
  async keys({ page }, { focus, keys }) {
    if (focus) await page.locator(focus).first().focus();
    for (const key of keys) await page.keyboard.press(key);
    return page.evaluate(readFocus);
  },

  /** The violations that axe finds, in words. */
  async axe({ page }) {
    await page.evaluate(AXE);
    const found = await page.evaluate((rules) => window.axe.run(document, { runOnly: rules }), RULES);
    const words = (violation) => `${violation.id}: ${violation.help}: ${violation.nodes.map((node) => node.html.slice(0, 200)).join(" | ")}`;
    return { violations: found.violations.map(words), passes: found.passes.length };
  },

  noted: ({ page }) => page.evaluate(() => window.noted),

  /** What the browser complained of, what was asked, and how much the parts weigh. */
  seen: ({ seen }) => seen,

  style: ({ page }, { selector, property }) =>
    page.evaluate(([s, p]) => getComputedStyle(document.querySelector(s)).getPropertyValue(p), [selector, property]),

  screenshot: ({ page }, { path, whole }) => page.screenshot({ path, fullPage: whole ?? false }),
};

/** Runs in the page. */
function readPage() {
  const read = (id) => document.getElementById(id).textContent.trim();
  const table = (id) => [...document.getElementById(id).rows].map((row) => [...row.cells].map((cell) => cell.textContent));
  return {
    title: document.title,
    level: document.body.dataset.level,
    verdict: read("verdict-word"),
    text: read("verdict-text"),
    served: read("served"),
    announced: read("announce"),
    leader: read("leader-node"),
    address: read("leader-address"),
    token: read("leader-token"),
    since: read("leader-since"),
    lease: read("lease-text"),
    lease_now: document.getElementById("lease").getAttribute("aria-valuenow"),
    budget: read("budget-machine"),
    members: table("members-rows"),
    etcd: table("etcd-rows"),
    etcd_text: read("etcd-text"),
    checks: read("checks-text"),
    history: read("history-summary"),
    lanes: [...document.querySelectorAll("#timeline-picture .lane-name")].map((name) => name.firstChild.textContent),
    leads_now: document.querySelectorAll("#timeline-picture .tenure.now").length,
  };
}

/** Runs in the page. */
function readFocus() {
  const focus = document.activeElement;
  return {
    label: focus.getAttribute("aria-label") ?? focus.textContent.trim(),
    pressed: focus.getAttribute("aria-pressed"),
    change: document.getElementById("change").textContent,
    stops: [...document.querySelectorAll("#timeline-marks button")].filter((button) => button.tabIndex === 0).length,
  };
}
