// Who led when: one lane for each node, a mark for each change, and what is known of the change that is chosen.

import { attribute, byId, h, rows, s, text } from "./dom.js";
import { clock, count, naturally, or, shortened, span } from "./format.js";
import { openIncident } from "./incident.js";

const HOUR = 3600_000;
export const RANGES = { "1h": HOUR, "6h": 6 * HOUR, "24h": 24 * HOUR, "7d": 168 * HOUR, "30d": 720 * HOUR };

const LANE = 30;
const BAR = 16;
const TOP = 6;
const AXIS = 24;
/** Marks closer than this are one. */
const CROWD = 22;
/** No more rows than anybody reads. */
const ROWS_MAX = 200;
const TICKS = [1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 7200, 10080].map((min) => min * 60_000);

export const REASONS = {
  renew_deadline: "no renewal of the lease was confirmed in time",
  clock_suspended: "the machine was suspended, and the lease ran out meanwhile",
  lease_expired: "the lease was over before the main loop had started",
  record_deleted: "the leader record is gone: given up without a report yet, deleted externally, or etcd ended the lease",
  deposed: "the record names another member",
  fenced: "the store refused a write under the old token",
  resigned_signal: "a signal asked the node to stop",
  resigned_request: "an operator asked the node to step down",
  probe_failed: "its probe failed",
  failed_back: "a member of a higher priority is back",
  handed_over: "the record was handed over",
  main_loop_ended: "the main loop ended by itself",
  main_loop_hung: "the main loop sent no heartbeat",
  start_timeout: "the main loop could not be started in time, or was not warm when another member's was",
  guardian_lost: "the guardian died or did not answer while it supervised the program",
  fuse: "the fuse ended the process at the end of its lease",
  kernel_timer: "the kernel timer killed a process that was stalled at the end of its lease",
  guardian_kill: "the guardian killed a process that hung beyond its lease",
  node_id_in_use: "another process runs under its node id",
  store_unavailable: "its store could not be reached",
  store_denied: "its store refused its login",
  store_changed: "its store was another one, or an older state of it",
  data_dir_stale: "its data dir was an older copy",
  disk_failed: "its data dir could not be written",
  vanished: "the leader vanished: killed, crashed or cut off",
};

let picture = { tenures: [], from: 0, to: 1, nodes: [] };
let chosen = null;

/** The changes between tenures, oldest first. The gap before a tenure belongs to the change that began it. */
export function changesOf(tenures, now) {
  const sorted = [...tenures].sort((a, b) => a.from_ms - b.from_ms);
  const changes = [];
  sorted.forEach((tenure, i) => {
    const next = sorted[i + 1];
    if (i === 0 && tenure.previous) changes.push(firstSeen(tenure));
    if (!next && !tenure.to_ms) return;
    const at = tenure.to_ms ?? next.from_ms;
    changes.push({
      at,
      tenure,
      from: tenure.node,
      to: next?.node ?? null,
      token: next?.token ?? null,
      reason: tenure.reason ?? null,
      planned: tenure.planned ?? null,
      detail: tenure.detail ?? "",
      seen: tenure.seen ?? null,
      gap: next ? (next.gap_ms ?? Math.max(0, next.from_ms - at)) : Math.max(0, now - at),
      atLeast: next?.gap_at_least ?? false,
      open: !next,
    });
  });
  return changes;
}

/** The tenure before is not in the list any more. */
function firstSeen(tenure) {
  return {
    at: tenure.from_ms, from: tenure.previous, to: tenure.node, token: tenure.token, reason: null, planned: null,
    detail: "", seen: null, gap: tenure.gap_ms ?? 0, atLeast: tenure.gap_at_least ?? false, open: false,
  };
}

/**
 * Shows these tenures over `range`, up to `now` on the node's clock. `nodes`: who has a lane in any case; `leads`: the token
 * of who leads, if that is known. The row of another tenure that is open has yet to be written to its end.
 */
export function showTimeline(tenures, nodes, range, now, leads) {
  const from = now - RANGES[range];
  const visible = tenures.filter((t) => (t.to_ms ?? now) >= from);
  const lanes = [...new Set([...nodes, ...visible.map((t) => t.node)])].sort(naturally);
  picture = { tenures: visible, nodes: lanes, from, to: now, range, leads };
  draw();
}

/** The smallest range that shows the last change in its right half or so. */
export function fitting(tenures, now) {
  const last = changesOf(tenures, now).at(-1)?.at;
  if (!last) return null;
  return Object.keys(RANGES).find((range) => now - last < RANGES[range] * 0.9) ?? Object.keys(RANGES).at(-1);
}

/** Draws again, in the width that there is now. */
export function draw() {
  const box = byId("timeline");
  const width = Math.max(240, box.clientWidth);
  const plot = plotOf(width);
  byId("timeline-picture").replaceChildren(drawing(plot));
  const changes = changesOf(picture.tenures, picture.to).filter((c) => c.at >= picture.from);
  drawMarks(plot, changes);
  showSummary(changes);
  showRows(changes);
}

function plotOf(width) {
  const longest = Math.max("changes".length, ...picture.nodes.map((node) => node.length));
  const left = Math.min(width * 0.3, longest * 8 + 16);
  const x = (ms) => left + ((Math.min(Math.max(ms, picture.from), picture.to) - picture.from) / (picture.to - picture.from)) * (width - left - 8);
  const lanes = picture.nodes.length * LANE;
  const names = shortened(picture.nodes, Math.max(3, Math.floor((left - 12) / 8)));
  return { names, width, left, x, lanes, height: TOP + lanes + LANE + AXIS };
}

function drawing(plot) {
  const words = `Who led over the last ${picture.range ?? ""}, one lane for each node. The table below has the same data.`;
  return s(
    "svg",
    { width: plot.width, height: plot.height, viewBox: `0 0 ${plot.width} ${plot.height}`, role: "img", "aria-label": words },
    hatching(),
    ...axis(plot),
    ...gaps(plot),
    ...picture.nodes.flatMap((node, i) => lane(plot, node, i)),
    s("text", { class: "lane-name", x: 0, y: TOP + plot.lanes + LANE / 2 + 4 }, "changes"),
  );
}

function hatching() {
  const pattern = s("pattern", { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
  pattern.append(s("rect", { class: "hatch-ground", width: 6, height: 6 }), s("rect", { class: "hatch-line", width: 2, height: 6 }));
  return s("defs", {}, pattern);
}

function lane(plot, node, i) {
  const y = TOP + i * LANE;
  const name = s("text", { class: "lane-name", x: 0, y: y + LANE / 2 + 4 }, plot.names[node]);
  name.append(s("title", {}, node));
  const ground = s("rect", { class: "lane", x: plot.left, y: y + (LANE - BAR) / 2, width: plot.width - plot.left - 8, height: BAR, rx: 3 });
  const bars = picture.tenures.filter((t) => t.node === node).map((t) => bar(plot, t, y));
  return [ground, ...bars, name];
}

function bar(plot, tenure, y) {
  const [x1, x2] = [plot.x(tenure.from_ms), plot.x(tenure.to_ms ?? picture.to)];
  const isNow = !tenure.to_ms && tenure.token === picture.leads;
  const until = tenure.to_ms ? `to ${clock(tenure.to_ms, picture.to)}` : isNow ? "and still leads" : "; its end is not reported yet";
  const words = `${tenure.node} led from ${clock(tenure.from_ms, picture.to)} ${until}, token ${tenure.token}`;
  const rect = s("rect", { class: isNow ? "tenure now" : "tenure", x: x1, y: y + (LANE - BAR) / 2, width: Math.max(2, x2 - x1), height: BAR, rx: 3 });
  rect.append(s("title", {}, words));
  return rect;
}

function gaps(plot) {
  return changesOf(picture.tenures, picture.to)
    .filter((c) => c.at + c.gap >= picture.from && (isUnplanned(c) || plot.x(c.at + c.gap) - plot.x(c.at) >= 1))
    .map((c) => {
      const [x1, x2] = [plot.x(c.at), plot.x(c.at + c.gap)];
      const rect = s("rect", { class: "gap", x: x1, y: TOP, width: Math.max(1.5, x2 - x1), height: plot.lanes, fill: "url(#hatch)" });
      rect.append(s("title", {}, `no leader for ${gapOf(c)}`));
      return rect;
    });
}

function axis(plot) {
  const room = (plot.width - plot.left) / 90;
  const step = TICKS.find((tick) => (picture.to - picture.from) / tick <= room) ?? TICKS.at(-1);
  const ticks = [];
  for (let at = Math.ceil(picture.from / step) * step; at <= picture.to; at += step) ticks.push(at);
  const bottom = TOP + plot.lanes + LANE;
  return ticks.flatMap((at) => [
    s("line", { class: "grid", x1: plot.x(at), x2: plot.x(at), y1: TOP, y2: bottom }),
    s("text", { class: "tick", x: Math.min(plot.x(at), plot.width - 24), y: bottom + 16, "text-anchor": "middle" }, tickName(at, step)),
  ]);
}

function tickName(at, step) {
  const iso = new Date(at).toISOString();
  return step >= 24 * HOUR || iso.slice(11, 16) === "00:00" ? iso.slice(5, 10) : iso.slice(11, 16);
}

// --- the marks: real buttons, one of which the Tab key reaches, and arrow keys go on from there

function drawMarks(plot, changes) {
  const groups = crowd(plot, changes);
  const box = byId("timeline-marks");
  const focused = box.contains(document.activeElement) ? document.activeElement.dataset.first : null;
  const buttons = groups.map((group) => mark(plot, group, groups));
  box.replaceChildren(...buttons);
  const current = groups.findIndex(isChosen);
  const entry = buttons.find((button) => button.dataset.first === focused) ?? buttons[current] ?? buttons.at(-1);
  if (entry) entry.tabIndex = 0;
  if (focused) entry?.focus();
  if (current < 0) choose(null, groups);
  else showChange(groups[current]);
}

function crowd(plot, changes) {
  const groups = [];
  for (const change of changes) {
    const x = plot.x(change.at);
    const last = groups.at(-1);
    if (last && x - last.x < CROWD) last.changes.push(change);
    else groups.push({ x, changes: [change] });
  }
  return groups;
}

/** What is known only from below says so. */
export const gapOf = (change) => `${change.atLeast ? "≥ " : ""}${span(change.gap)}`;

const keyOf = (change) => `${change.at} ${change.from}`;
/** In another width the chosen change may be among others. */
const isChosen = (group) => group.changes.some((change) => keyOf(change) === chosen);
const isUnplanned = (change) => change.planned !== true;

function mark(plot, group, groups) {
  const unplanned = group.changes.some(isUnplanned);
  const several = group.changes.length > 1;
  const button = h(
    "button",
    {
      type: "button",
      class: unplanned ? "mark-button unplanned" : "mark-button planned",
      tabindex: -1,
      "data-first": keyOf(group.changes[0]),
      "aria-label": markWords(group),
      "aria-pressed": String(isChosen(group)),
      onclick: () => choose(isChosen(group) ? null : group, groups),
      onkeydown: (event) => walk(event, groups.indexOf(group)),
    },
    several ? String(group.changes.length) : unplanned ? "▲" : "◇",
  );
  button.style.left = `${Math.min(Math.max(group.x, plot.left + 4), plot.width - 12)}px`;
  button.style.top = `${TOP + plot.lanes + LANE / 2}px`;
  return button;
}

function markWords(group) {
  const [first] = group.changes;
  if (group.changes.length > 1) {
    const unplanned = group.changes.filter(isUnplanned).length;
    return `${group.changes.length} changes from ${clock(first.at, picture.to)} on, ${unplanned} of them unplanned`;
  }
  return `${clock(first.at, picture.to)}: ${kindOf(first)} change, ${whoToWhom(first)}`;
}

export const kindOf = (change) => (change.planned === true ? "planned" : change.planned === false ? "unplanned" : "unexplained");
const whoToWhom = (change) => `${or(change.from)} → ${change.to ?? "none"}`;

function walk(event, index) {
  const buttons = [...byId("timeline-marks").children];
  const last = buttons.length - 1;
  const to = { ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: last }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  const target = buttons[Math.min(Math.max(to, 0), last)];
  buttons.forEach((button) => (button.tabIndex = button === target ? 0 : -1));
  target.focus();
}

function choose(group, groups) {
  chosen = group && keyOf(group.changes[0]);
  [...byId("timeline-marks").children].forEach((button, i) => attribute(button, "aria-pressed", String(isChosen(groups[i]))));
  if (group) showChange(group);
  else byId("change").replaceChildren();
}

// --- what is known of the chosen change

function showChange(group) {
  const parts = group.changes.slice(-20).map(story);
  const box = byId("change");
  const next = h("div", {}, ...parts);
  if (box.textContent !== next.textContent) box.replaceChildren(next);
}

function story(change) {
  const head = h(
    "p",
    { class: "change-head" },
    h("span", { class: isUnplanned(change) ? "shape-unplanned" : "shape-planned", "aria-hidden": "true" }, isUnplanned(change) ? "▲ " : "◇ "),
    h("strong", {}, whoToWhom(change)),
    ` ${clock(change.at, picture.to)}, ${kindOf(change)}`,
  );
  const reason = change.reason ? h("p", {}, h("a", { href: `/explain/${change.reason}` }, h("code", {}, change.reason)), `: ${REASONS[change.reason] ?? "see the log"}`) : h("p", {}, "The reason is not known.");
  const gap = h("p", {}, change.open ? `No leader since, for ${span(change.gap)}.` : `No leader for ${gapOf(change)}.`);
  const detail = change.detail ? h("p", { class: "change-detail" }, change.detail) : null;
  const seen = seenWords(change.seen);
  const sheet = change.tenure ? h("button", { type: "button", onclick: () => openIncident(change) }, "Incident report") : null;
  return h("div", { class: "story" }, head, reason, gap, detail, seen ? h("p", { class: "muted" }, seen) : null, sheet);
}

export function seenWords(seen) {
  if (!seen) return "";
  const words = [];
  if (seen.ack_age_ms != null) words.push(`last renewal ${span(seen.ack_age_ms)} before`);
  if (seen.slowest) words.push(`slowest: ${seen.slowest}, ${span(seen.slowest_ms)}`);
  if (seen.tick_delay_ms) words.push(`timers up to ${span(seen.tick_delay_ms)} late`);
  return words.length > 0 ? `What the leader knew then: ${words.join(" · ")}` : "";
}

function showSummary(changes) {
  const unplanned = changes.filter(isUnplanned);
  const longest = changes.reduce((most, c) => (c.gap >= most.gap ? c : most), { gap: 0 });
  const words = [`Last ${picture.range}: ${count(changes.length, "change")}`];
  if (changes.length > 0) words.push(`${unplanned.length} unplanned`, `longest without a leader ${gapOf(longest)}`);
  text("history-summary", words.join(" · "));
}

function showRows(changes) {
  const newest = [...changes].reverse().slice(0, ROWS_MAX);
  rows(byId("history-rows"), newest.map((c) => [
    { text: clock(c.at, picture.to) },
    { text: or(c.from) },
    { text: c.to ?? "none" },
    { text: `${isUnplanned(c) ? "▲" : "◇"} ${kindOf(c)}` },
    { text: or(c.reason) },
    { text: gapOf(c), kind: "number" },
    { text: or(c.detail) },
  ]));
}
