// The token that a node on an open network wants to see. It is kept in memory, and gone with the page.

import { attribute, byId, text } from "./dom.js";

let token = null;
/** Resolved while nobody waits for a token. */
let admitted = Promise.resolve();
let admit = () => {};

/** Is a token waited for? */
export const isLocked = () => !byId("login").hidden;

/** Asks, with the token if there is one; `timeoutMs` is for one try. While a token is missing nothing is asked: this waits. */
export async function ask(path, timeoutMs) {
  for (;;) {
    await admitted;
    const shown = token;
    const headers = shown ? { authorization: `Bearer ${shown}` } : {};
    const answer = await fetch(path, { headers, cache: "no-store", signal: timeoutMs ? AbortSignal.timeout(timeoutMs) : undefined });
    if (answer.status !== 401) return answer;
    if (shown === token) wait(shown);
  }
}

function wait(shown) {
  if (isLocked()) return;
  text("login-why", why(shown));
  byId("login").hidden = false;
  attribute(document.body, "data-locked", "true");
  admitted = new Promise((resolve) => (admit = resolve));
  byId("token").focus();
}

function why(shown) {
  return shown ? "This node does not know this token." : "This node requires authentication. Enter a token, or install a client certificate in your browser.";
}

byId("login").addEventListener("submit", (event) => {
  event.preventDefault();
  const field = byId("token");
  // Nothing else can be in a header.
  token = field.value.replace(/[^\x21-\x7e]/g, "");
  field.value = "";
  byId("login").hidden = true;
  attribute(document.body, "data-locked", null);
  admit();
});
