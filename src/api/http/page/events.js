// The events of this node as they happen, newest first.

import { byId, h, text } from "./dom.js";
import { clock, local, or, span } from "./format.js";

/** Older ones make way. */
const EVENTS_MAX = 100;

/** What is shown of them: { words, alarming }. */
const wanted = { words: [], alarming: false };

const SAYINGS = {
  listening: () => "listens",
  joined: () => "is registered and may lead",
  rejoining: () => "lost its lease as a candidate and registers again",
  leader_changed: (e) => `${e.leader ?? "no member"} leads now${before(e)}`,
  tenure_ended: (e) => `the tenure of ${or(e.leader)} has ended: ${or(e.reason)}${e.detail ? ` (${e.detail})` : ""}`,
  verdict: (e) => or(e.text),
  frozen: (e) => `the election is frozen ${e.until ? `until ${e.until}` : "until it is ended"} by ${e.by}: ${e.reason}`,
  unfrozen: () => "the election is not frozen any more",
  member_joined: (e) => `member ${e.member} joined`,
  member_left: (e) => `member ${e.member} is gone`,
  leadership_won: (e) => `won leadership, token ${e.token}`,
  claim_refused: (e) => `the store refused its claim: ${or(e.error)}`,
  claim_lost: () => "claim lost; another member was faster",
  write_fenced: () => "a write under an old token was refused",
  outcome_unknown: () => "the outcome of a write is unknown; it is being settled",
  main_loop_started: (e) => `main loop started, token ${e.token}`,
  main_loop_stopping: (e) => `main loop was told to stop: ${e.reason}`,
  main_loop_stopped: (e) => `main loop has stopped: ${e.reason}`,
  leadership_resigned: () => "resigned",
  data_dir_lost: (e) => `the data dir ${or(e.path)} was deleted, or replaced by another folder`,
  store_trouble: (e) => `requests to the store fail: ${or(e.error)}`,
  store_recovered: (e) => `the store answers again, after ${span(e.after_ms)}`,
  check_changed: (e) => `check ${or(e.code ?? e.name)} is ${or(e.status)} now`,
  admin_action: (e) => `${e.by} requested a ${e.action}${e.to ? ` to ${e.to}` : ""}`,
  leader_hook_ended: (e) => `on_leader_change${e.leader ? ` for ${e.leader}` : ""}: ${e.result}${e.code ? ` (${e.code})` : ""}`,
  call_refused: (e) => `refused ${e.what}: ${e.why}${e.left_out ? `; ${e.left_out} more were refused before` : ""}`,
  stopped: (e) => `stops: ${e.reason}${e.detail ? ` (${e.detail})` : ""}`,
  missed: (e) => `${e.missed} events were missed: this page was too slow`,
};

const ALARMING = ["claim_refused", "write_fenced", "data_dir_lost", "store_trouble", "main_loop_stopping", "rejoining", "missed", "verdict", "call_refused"];

function before(event) {
  if (!event.previous) return "";
  const gap = event.gap_ms == null ? "" : `, no leader for ${event.gap_at_least ? "at least " : ""}${span(event.gap_ms)}`;
  return `, ${event.previous} led before${event.reason ? ` (${event.reason})` : ""}${gap}`;
}

/** "open", "lost" or "absent". */
export function showStream(condition) {
  const words = {
    open: "The last events of this node, and what happens now. What happened before is in the history above and in the log.",
    lost: "The stream is broken; reconnecting.",
    absent: "Not available on this node. On the command line, metad watch follows the cluster.",
  };
  text("events-text", words[condition]);
  // A new stream begins with the last events again.
  if (condition === "open") byId("events-list").replaceChildren();
  showHidden();
}

export function showEvent(event) {
  const list = byId("events-list");
  const fresh = line(event);
  fresh.hidden = !isWanted(fresh);
  list.prepend(fresh);
  while (list.children.length > EVENTS_MAX) list.lastChild.remove();
  showHidden();
}

/** Those of this time that are still known, oldest first: { at, words, alarming }. */
export function eventsBetween(from, to) {
  const known = [...byId("events-list").children].map((li) => ({ at: Number(li.dataset.at), words: li.lastChild.textContent, alarming: li.classList.contains("alarming") }));
  return known.filter(({ at }) => at >= from && at <= to).reverse();
}

const isWanted = (li) => (!wanted.alarming || li.classList.contains("alarming")) && wanted.words.every((word) => `${li.title} ${li.textContent}`.toLowerCase().includes(word));

function filter() {
  wanted.words = byId("events-filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  wanted.alarming = byId("events-alarming").checked;
  for (const li of byId("events-list").children) li.hidden = !isWanted(li);
  showHidden();
}

function showHidden() {
  const all = [...byId("events-list").children];
  const shown = all.filter((li) => !li.hidden).length;
  text("events-shown", shown < all.length ? `${shown} of ${all.length} are shown` : "");
}

for (const id of ["events-filter", "events-alarming"]) byId(id).addEventListener("input", filter);

function line(event) {
  const at = event.time ? Date.parse(event.time) : Date.now();
  const saying = SAYINGS[event.type] ?? (() => event.type.replaceAll("_", " "));
  const alarming = ALARMING.includes(event.type) || (event.type === "leader_changed" && !event.leader);
  return h(
    "li",
    { class: alarming ? "alarming" : null, title: event.type, "data-at": at },
    h("time", { datetime: new Date(at).toISOString(), title: local(at) }, clock(at)),
    h("span", { class: "shape", "aria-hidden": "true" }, alarming ? "▲" : "·"),
    h("span", {}, saying(event)),
  );
}
