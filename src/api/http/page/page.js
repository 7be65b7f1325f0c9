// The page: asks this node, decides in one place how things stand, and hands each part what it shows.

import { showChecks, tally } from "./checks.js";
import { announce, attribute, byId, copyButtons, h, text } from "./dom.js";
import { showStore } from "./etcd.js";
import { showEvent, showStream } from "./events.js";
import { listen, poll } from "./feed.js";
import { clock, count, local, moment, naturally, span } from "./format.js";
import { leastOf, redrawHeadroom, showHeadroom } from "./headroom.js";
import { serveIncidents } from "./incident.js";
import { showLeader, showLease } from "./leader.js";
import { pageOf, showMembers } from "./members.js";
import { RANGES, draw, fitting, showTimeline } from "./timeline.js";
import { isLocked } from "./token.js";

/** A change shows within this, and the time of one answer, even without the stream of events. */
const STATE_MS = 1000;
const HISTORY_MS = 30_000;
const HEADROOM_MS = 10_000;
const CHECKS_MS = 15_000;
/** A picture that is older is out of date. */
const FRESH_MS = 15_000;
/** How often what drains and ages is drawn. */
const FRAME_MS = 250;
/** Headroom is kept for a day. */
const HEADROOM_RANGE = { "7d": "24h", "30d": "24h" };
/** Events after which the picture is another one. */
const CHANGING = ["leader_changed", "member_joined", "member_left", "leadership_won", "main_loop_started", "main_loop_stopped", "joined", "frozen", "unfrozen"];

const now = {
  state: null,
  arrived: 0,
  failedSince: null,
  why: "",
  cpu: null,
  range: rangeFromAddress(),
  history: {},
  headroom: {},
  hour: null,
  checks: {},
};

// --- how things stand

/** The one place that decides it: { level, word, text }. */
function verdict() {
  const { state } = now;
  if (isLocked()) return { level: "unknown", word: "Token needed", text: "" };
  if (!state) return now.failedSince ? unreachable("No state is known.") : { level: "unknown", word: "Querying this node…", text: "" };
  const old = `State as of ${clock(nodeTime() - late() - staleBy())}, ${span(late() + staleBy())} ago.`;
  if (now.failedSince) return unreachable(old);
  if (!isCurrent()) {
    const who = storeAnswers() ? "This node has an outdated view" : state.store.kind === "etcd" ? "etcd does not answer" : "The store does not answer";
    return { level: "lost", word: who, text: `${cure(state)}Last known: ${lastKnown(state)}. ${old}` };
  }
  if (!state.leader) return { level: "bad", word: "No leader", text: whyNobody(state) };
  return judged(state);
}

function whoElects({ members }) {
  if (members.length === 0) return "No member is registered.";
  return members.some((member) => member.priority > 0) ? "The members are electing one." : "No registered member may lead: each has priority 0.";
}

function whyNobody(state) {
  if (state.freeze) return `${frozen(state.freeze)} Nobody claims the vacancy meanwhile; to end it: metad unfreeze`;
  return state.foreign ? whoQueues(state.foreign) : whoElects(state);
}

const frozen = ({ reason, by, until }) => `Frozen ${until ? `until ${clock(moment(until), nodeTime())}` : "until it is ended"} by ${by}: ${reason}.`;

const whoQueues = ({ key, value, look }) => `No leader can be elected: the key ${key} with the value “${value}” is where only the leader record belongs. Inspect it: ${look}`;

/** What is wrong with the store, and what to do about it: once, if it is the same everywhere. */
function cure(state) {
  const bad = state.store.endpoints.filter((endpoint) => endpoint.finding);
  const same = bad.length > 1 && bad.every(({ finding }) => finding === bad[0].finding);
  if (same) return `Each of the ${bad.length} endpoints ${bad[0].finding}; ${bad[0].fix}. `;
  return bad.map(({ endpoint, finding, fix }) => `${endpoint} ${finding}; ${fix}. `).join("");
}

function unreachable(old) {
  const others = (now.state?.members ?? []).filter((member) => member.node !== now.state.answerer.node && pageOf(member));
  const named = others.map((member) => `${member.node} at ${pageOf(member)}`);
  const open = named.length > 0 ? ` Open the page of another member: ${named.join(", ")}.` : "";
  return { level: "lost", word: "Cannot reach this node", text: `It has not answered since ${clock(now.failedSince)}: ${now.why}. ${old}${open}` };
}

const lastKnown = (state) => {
  const leader = state.leader ?? state.last_known_leader;
  return leader ? `${leader.node} led` : "no leader";
};

function judged(state) {
  const counts = tally(now.checks.data?.findings ?? []);
  const gone = state.gone.map((member) => member.node).sort(naturally);
  const words = [];
  if (state.freeze) words.push("frozen");
  if (state.answerer.probe) words.push("this node’s probe fails");
  if (state.answerer.unready) words.push("this node is not ready");
  if (counts.fail > 0) words.push(`${count(counts.fail, "check")} failed`);
  if (gone.length > 0) words.push(`${count(gone.length, "member")} gone`);
  if (counts.unknown > 0) words.push(`${count(counts.unknown, "check")} not possible`);
  if (counts.warn > 0) words.push(count(counts.warn, "warning"));
  const level = counts.fail > 0 ? "bad" : words.length > 0 ? "warn" : "good";
  return { level, word: [`${state.leader.node} leads`, ...words].join(", "), text: explained(state, gone, counts) };
}

function explained({ freeze, answerer }, gone, counts) {
  const said = [];
  if (answerer.probe) said.push(`This node’s probe fails: ${answerer.probe}.`);
  if (answerer.unready) said.push(`This node is not ready to lead: ${answerer.unready}.`);
  if (freeze) said.push(`${frozen(freeze)} Nobody takes over from the leader meanwhile.`);
  if (gone.length > 0) said.push(`${gone.join(", ")} left within the last hour.`);
  if (counts.fail + counts.warn > 0) said.push("Fixes are below, under Checks.");
  else if (counts.unknown > 0) said.push("The reason is below, under Checks.");
  else if (!now.checks.data?.at) said.push("No check results are known.");
  return said.join(" ");
}

/** Does the store answer this node? Each member of etcd is looked at every few seconds. */
function storeAnswers() {
  const { kind, endpoints } = now.state.store;
  if (kind === "etcd") return endpoints.length === 0 || endpoints.some((endpoint) => endpoint.up);
  return isFresh();
}

/**
 * Has the election of this node heard of the store lately? It does every five seconds at least, whatever the lease. What
 * hangs within the node does not keep etcd from answering.
 */
const isFresh = () => !now.state.answerer.is_outdated && now.state.answerer.age_ms < FRESH_MS;

const isCurrent = () => storeAnswers() && isFresh();

/** How much older than its arrival the picture is, when the store does not confirm it. */
function staleBy() {
  if (isCurrent()) return 0;
  if (storeAnswers()) return now.state.answerer.age_ms;
  const seen = now.state.store.endpoints.map((endpoint) => moment(endpoint.answered) ?? 0);
  const last = Math.max(0, ...seen);
  return last > 0 ? Math.min(now.state.answerer.age_ms, moment(now.state.time) - last) : now.state.answerer.age_ms;
}

const late = () => (now.state ? performance.now() - now.arrived : 0);
/** The node's wall clock. */
const nodeTime = () => (now.state ? moment(now.state.time) + late() : Date.now());

// --- drawing

function drawVerdict() {
  const found = verdict();
  const was = document.body.dataset.level;
  if (was !== found.level && [was, found.level].some((level) => ["lost", "bad"].includes(level))) announce(`${found.word}.`);
  attribute(document.body, "data-level", found.level);
  text("verdict-word", found.word);
  text("verdict-text", found.text);
  document.title = `${found.word}${now.state ? ` · ${now.state.answerer.cluster}` : ""} · metad`;
  if (!now.state) return;
  text("cluster", now.state.answerer.cluster);
  text("served", `Served by ${now.state.answerer.node} (${now.state.answerer.role}), metad ${now.state.answerer.version} · ${clock(nodeTime())} UTC${here()}`);
}

function here() {
  const words = local(nodeTime());
  return words ? ` (${words})` : "";
}

/** What drains and ages. */
function frame() {
  drawVerdict();
  const { state } = now;
  if (!state) return;
  showLease(state, late(), nodeTime(), now.failedSince !== null || !isCurrent());
  showMembers(state, late(), nodeTime(), { cpu: now.cpu, headroom: now.hour, members: measuredMembers() });
  showStore(state, nodeTime(), now.checks.data ?? null);
  showChecks(now.checks, nodeTime());
}

/** What the checks measured of each member, by node id. */
function measuredMembers() {
  const members = now.checks.data?.members ?? [];
  return Object.fromEntries(members.map((member) => [member.node, member]));
}

function drawHistory() {
  if (!now.state) return;
  const nodes = [...now.state.members, ...now.state.gone].map((member) => member.node);
  showTimeline(tenures(), nodes, now.range, nodeTime(), isCurrent() ? now.state.leader?.token : null);
}

/** The history, or, where there is none, the tenure that the record shows. */
function tenures() {
  const { leader } = now.state;
  const open = leader && { token: leader.token, node: leader.node, from: leader.acquired, to: null };
  const known = now.history.data?.tenures ?? [];
  // The row of a tenure is written a moment after it has begun.
  const all = open && !known.some((tenure) => tenure.token === leader.token) ? [...known, open] : known;
  return all.map((tenure) => ({ ...tenure, from_ms: moment(tenure.from), to_ms: moment(tenure.to) }));
}

// --- what comes in

function onState(answer) {
  if (!answer.data) {
    now.failedSince ??= nodeTime();
    now.why = answer.failed ?? "it does not know this page’s request";
    frame();
    return;
  }
  const before = now.state;
  now.cpu = share(before, answer.data) ?? now.cpu;
  now.state = answer.data;
  now.arrived = performance.now();
  now.failedSince = null;
  showLeader(now.state);
  frame();
  if (!before || before.leader?.token !== now.state.leader?.token) onLeader(before);
}

function onLeader(before) {
  const { leader } = now.state;
  const nobody = now.state.answerer.is_outdated ? "It is not known who leads." : "There is no leader.";
  if (before) announce(leader ? `${leader.node} leads now.` : nobody);
  drawHistory();
  askHistory();
}

/** This node's share of one CPU between two answers, in percent. */
function share(before, after) {
  const took = moment(after.time) - moment(before?.time ?? after.time);
  const used = after.process.cpu_secs - (before?.process.cpu_secs ?? 0);
  return before && took > 0 && used >= 0 ? (used / (took / 1000)) * 100 : null;
}

function onEvent(event) {
  showEvent(event);
  if (CHANGING.includes(event.type)) askState();
  if (event.type === "tenure_ended") askHistory();
  if (event.type === "check_changed") askChecks();
}

function onHeadroom(answer) {
  now.headroom = answer;
  if (answer.data) showHeadroom(answer.data, headroomRange(), headroomWindow());
  else text("headroom-summary", answer.absent ? "Not available on this node." : `No data from this node: ${answer.failed}.`);
}

function headroomWindow() {
  const to = nodeTime() / 1000;
  return [to - RANGES[headroomRange()] / 1000, to];
}

const headroomRange = () => HEADROOM_RANGE[now.range] ?? now.range;

// --- the range of time that is shown

function rangeFromAddress() {
  const asked = new URLSearchParams(location.hash.slice(1)).get("range");
  return Object.hasOwn(RANGES, asked ?? "") ? asked : "24h";
}

function drawRanges() {
  const button = (range) => h("button", { type: "button", "aria-pressed": String(range === now.range), onclick: () => setRange(range) }, range);
  byId("ranges").replaceChildren(...Object.keys(RANGES).map(button));
}

function setRange(range) {
  history.replaceState(null, "", `#range=${range}`);
  showRange(range);
}

/** Until somebody has chosen a range, it is the one that shows the last change. */
function fit() {
  if (location.hash.includes("range=")) return;
  const range = fitting(tenures(), nodeTime());
  if (range && range !== now.range) showRange(range);
}

function showRange(range) {
  now.range = range;
  [...byId("ranges").children].forEach((button) => attribute(button, "aria-pressed", String(button.textContent === range)));
  drawHistory();
  askHistory();
  askHeadroom();
}

// --- begin

drawRanges();
copyButtons();
serveIncidents(() => ({ state: now.state, at: nodeTime() }));
const askState = poll(() => "/api/v1/state", STATE_MS, onState);
const askHistory = poll(() => `/api/v1/history?since=${now.range}`, HISTORY_MS, (answer) => {
  // As for the checks: what was known stays known.
  now.history = answer.failed ? { ...now.history, failed: answer.failed } : answer;
  if (now.state) fit();
  drawHistory();
});
const askHeadroom = poll(() => `/api/v1/headroom?since=${headroomRange()}`, HEADROOM_MS, onHeadroom);
poll(() => "/api/v1/headroom?since=1h", HEADROOM_MS * 3, (answer) => (now.hour = leastOf(answer.data)));
const askChecks = poll(() => "/api/v1/checks", CHECKS_MS, (answer) => {
  // What failed does not pass because the next answer is late.
  now.checks = answer.failed ? { ...now.checks, failed: answer.failed } : answer;
  frame();
});
listen("/api/v1/events?recent=true", onEvent, showStream);
addEventListener("hashchange", () => showRange(rangeFromAddress()));
setInterval(frame, FRAME_MS);
setInterval(drawHistory, 10_000);
new ResizeObserver(() => {
  draw();
  redrawHeadroom();
}).observe(byId("timeline"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawHeadroom);
