// One tenure on one sheet, to print or to keep: who led, why it ended, and what this node knows of the minute before.

import { announce, attribute, byId, copyable, h, text } from "./dom.js";
import { eventsBetween } from "./events.js";
import { get } from "./feed.js";
import { clock, or, ratio, span } from "./format.js";
import { REASONS, gapOf, kindOf, seenWords } from "./timeline.js";

/** So long before its end the story begins, and so long after the next leader it ends. */
const BEFORE_MS = 60_000;
const AFTER_MS = 5000;
/** Headroom is kept for a day. */
const KEPT_MS = 24 * 3600_000;

let known = null;

/** `source`: the state, and the node's clock. */
export function serveIncidents(source) {
  known = source;
  byId("incident-print").addEventListener("click", () => print());
  byId("incident-close").addEventListener("click", close);
}

function close() {
  byId("incident").hidden = true;
  attribute(document.body, "data-incident", null);
  byId("history-title").scrollIntoView();
}

/** Shows what ended the tenure of this change. */
export async function openIncident(change) {
  const { tenure } = change;
  const until = change.at + change.gap + AFTER_MS;
  text("incident-title", `Incident: the end of ${tenure.node}’s tenure ${tenure.token}`);
  byId("incident-body").replaceChildren(facts(change), ...minute(change, until), ...others(change));
  byId("incident").hidden = false;
  attribute(document.body, "data-incident", "true");
  byId("incident-title").focus();
  announce("The incident report is open.");
  const part = await headroom(change.at);
  byId("incident-headroom")?.replaceChildren(part);
}

function facts(change) {
  const { tenure } = change;
  const { state, at } = known();
  const rows = [
    ["Cluster", or(state?.answerer.cluster)],
    ["Led", `${tenure.node}, gRPC ${or(tenure.address)}`],
    ["Token", String(tenure.token)],
    ["From", `${clock(tenure.from_ms, 0)} UTC`],
    ["To", `${clock(change.at, 0)} UTC, after ${span(change.at - tenure.from_ms)}`],
    ["Ended", `${kindOf(change)}: ${change.reason ? `${change.reason}, ${REASONS[change.reason] ?? "see the log"}` : "the reason is not known"}`],
    ["No leader for", change.open ? `${span(change.gap)}, and still` : gapOf(change)],
    ["Next", change.to ? `${change.to}, token ${change.token}` : "none"],
    ["Detail", or(change.detail)],
    ["Known then", or(seenWords(change.seen))],
    ["Told by", `${or(state?.answerer.node)} at ${clock(at, 0)} UTC`],
  ];
  return h("dl", { class: "facts" }, ...rows.map(([name, words]) => h("div", {}, h("dt", {}, name), h("dd", {}, words))));
}

function minute(change, until) {
  const events = eventsBetween(change.at - BEFORE_MS, until);
  const line = (event) => {
    const offset = event.at - change.at;
    const when = `${offset < 0 ? "−" : "+"}${span(Math.abs(offset))}`;
    return h("tr", { class: event.alarming ? "alarming" : null }, h("th", { scope: "row" }, clock(event.at, 0)), h("td", { class: "number" }, when), h("td", { class: "words" }, event.words));
  };
  const head = h("thead", {}, h("tr", {}, ...["When", "To its end", "Event"].map((name) => h("th", { scope: "col" }, name))));
  const table = h("table", {}, head, h("tbody", { id: "incident-events" }, ...events.map(line)));
  const none = h("p", { class: "muted" }, "This node knows no event of that minute any more. Its log has them, and that of the node that led.");
  return [
    h("h3", {}, "The minute before it ended, as this node saw it"),
    events.length > 0 ? h("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "Events of that minute" }, table) : none,
    h("p", { id: "incident-headroom", class: "muted" }),
  ];
}

function others({ at }) {
  const { state } = known();
  const leader = state?.leader?.address ?? state?.members[0]?.rpc_address;
  const history = `metad history -o json${leader ? ` --meta ${leader}` : ""}`;
  const log = `journalctl -u metad --since "${utc(at - BEFORE_MS)} UTC" --until "${utc(at + AFTER_MS)} UTC"`;
  const commands = [["The history", history], ["The log, on each node", log]];
  return [h("h3", {}, "To keep with it"), ...commands.flatMap(([what, command]) => [h("p", { class: "muted" }, what), copyable(command, what)])];
}

const utc = (ms) => new Date(ms).toISOString().slice(0, 19).replace("T", " ");

/** How much of this node's lease was left in that minute, if it renewed one. */
async function headroom(endMs) {
  const ago = known().at - endMs + BEFORE_MS;
  if (ago > KEPT_MS) return "";
  const answer = await get(`/api/v1/headroom?since=${Math.ceil(ago / 1000) + 10}s`);
  const step = (answer.data?.step_secs ?? 0) * 1000;
  const points = (answer.data?.points ?? []).filter(([secs]) => secs * 1000 + step > endMs - BEFORE_MS && secs * 1000 <= endMs);
  if (points.length === 0) return "This node confirmed no renewal in that minute.";
  return `Least part of this node’s lease that was left in that minute: ${ratio(Math.min(...points.map(([, least]) => least)))}`;
}
