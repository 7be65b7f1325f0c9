// What this node says: documents that are asked for again and again, and the stream of its events.

/** An answer that takes longer is none. */
const PATIENCE_MS = 4000;
/** A node of this version that lacks a document will lack it in a moment too. */
const ABSENT_MS = 60_000;
/** A stream that cannot be opened is tried again after so long. */
const REOPEN_MS = 10_000;

/** { data }, { absent: true }, or { failed: why }. */
export async function get(path) {
  try {
    const answer = await fetch(path, { signal: AbortSignal.timeout(PATIENCE_MS), cache: "no-store" });
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
  const open = () => {
    const stream = new EventSource(path);
    stream.onopen = () => {
      wasOpen = true;
      changed("open");
    };
    stream.onmessage = (message) => use(JSON.parse(message.data));
    stream.addEventListener("missed", (message) => use({ type: "missed", ...JSON.parse(message.data) }));
    stream.onerror = () => {
      changed(wasOpen ? "lost" : "absent");
      // A browser gives up on an answer that is no stream; a broken one it opens again by itself.
      if (stream.readyState === EventSource.CLOSED) setTimeout(open, wasOpen ? REOPEN_MS : ABSENT_MS);
    };
  };
  open();
}
