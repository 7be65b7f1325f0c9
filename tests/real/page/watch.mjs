// What the browser notes by itself while the page lives: complaints, requests, and when changes were heard and shown.

/** Notes all from the first request on. */
export async function watch(page) {
  const seen = { complaints: [], requests: [], bytes: {} };
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) seen.complaints.push({ text: message.text(), url: message.location().url });
  });
  page.on("pageerror", (error) => seen.complaints.push({ text: String(error), url: "" }));
  page.on("request", (request) => seen.requests.push(request.url()));
  page.on("response", (response) => weigh(response, seen.bytes));
  await page.addInitScript(noteChanges);
  return seen;
}

/** How much the parts of the page weigh, not its data. */
async function weigh(response, bytes) {
  const { pathname } = new URL(response.url());
  if (pathname !== "/" && !pathname.startsWith("/page/")) return;
  const body = await response.body().catch(() => Buffer.alloc(0));
  bytes[pathname] = body.length;
}

/** Runs in the page, before its own scripts: when was each leader first heard of, and when first shown? */
function noteChanges() {
  window.noted = { heard: {}, shown: {} };
  const note = (where, name) => {
    if (name && !(name in where)) where[name] = Date.now();
  };
  const plain = window.fetch;
  window.fetch = async (...args) => {
    const answer = await plain(...args);
    if (String(args[0]).endsWith("/state") && answer.ok) {
      const state = await answer.clone().json();
      note(window.noted.heard, state.leader?.node);
    }
    return answer;
  };
  const look = () => note(window.noted.shown, document.getElementById("leader-node")?.textContent);
  new MutationObserver(look).observe(document, { childList: true, subtree: true, characterData: true });
}
