// What this node says: documents that are asked for again and again, and the stream of its events.

import { ask } from "./token.js";

/** An answer that takes longer is none. */
const PATIENCE_MS = 4000;
/** A node of this version that lacks a document will lack it in a moment too. */
const ABSENT_MS = 60_000;
/** A stream that has broken off is opened again after so long. */
const REOPEN_MS = 3000;

/** { data }, { absent: true }, or { failed: why }. Waits for a token where one is needed. */
export async function get(path) {
  try {
    const answer = await ask(path, PATIENCE_MS);
    if (answer.status === 404) return { absent: true };
    if (!answer.ok) return { failed: `it answers ${answer.status}` };
    return { data: await answer.json() };
  } catch (error) {
    return { failed: error.name === "TimeoutError" ? "it does not answer" : "it cannot be reached" };
  }
}

/**
 * Asks for `path()` every `everyMs`, one question at a time, and hands each answer to `use`. Returns a function that
 * asks at once. An answer to a question that is out of date (`path()` has changed meanwhile) is dropped.
 */
export function poll(path, everyMs, use) {
  let timer;
  let underWay = false;
  let again = false;
  const ask = async () => {
    clearTimeout(timer);
    if (underWay) {
      again = true;
      return;
    }
    underWay = true;
    const asked = path();
    const answer = await get(asked);
    underWay = false;
    const outdated = asked !== path();
    const pause = again || outdated ? 0 : answer.absent ? ABSENT_MS : everyMs;
    again = false;
    // First: whatever cannot be drawn must not be the last that is asked.
    timer = setTimeout(ask, pause);
    if (!outdated) use(answer);
  };
  document.addEventListener("visibilitychange", () => document.hidden || ask());
  ask();
  return ask;
}

/** Follows the stream of events. `use` gets each event; `changed` is told "open", "lost" or "absent". */
export function listen(path, use, changed) {
  let wasOpen = false;
  const follow = async () => {
    try {
      // An EventSource cannot show a token.
      const answer = await ask(path, null);
      if (answer.ok) {
        wasOpen = true;
        changed("open");
        await readEvents(answer.body, use);
      }
    } catch {
      // It has broken off: said below.
    }
    changed(wasOpen ? "lost" : "absent");
    setTimeout(follow, wasOpen ? REOPEN_MS : ABSENT_MS);
  };
  follow();
}

/** One message is some lines `field: value`, and ends with an empty one. */
async function readEvents(body, use) {
  let rest = "";
  for await (const text of chunks(body)) {
    const messages = (rest + text).split("\n\n");
    rest = messages.pop();
    messages.map(parsed).forEach((message) => hand(message, use));
  }
}

/** One that cannot be shown must not cost the others. */
function hand({ type, data }, use) {
  try {
    if (data) use(type === "missed" ? { type, ...JSON.parse(data) } : JSON.parse(data));
  } catch (error) {
    console.error(error);
  }
}

function parsed(message) {
  const found = { type: "message", data: "" };
  for (const line of message.split("\n")) {
    if (line.startsWith("event:")) found.type = line.slice(6).trim();
    if (line.startsWith("data:")) found.data += line.slice(5);
  }
  return found;
}

async function* chunks(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
