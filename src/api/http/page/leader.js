// The card of the leader: who, since when, how much of the lease is left, and how long a change would take.

import { attribute, byId, copyable, h, text } from "./dom.js";
import { UNKNOWN, age, clock, moment, naturally, or, seconds, span } from "./format.js";
import { pageOf } from "./members.js";

/** No more members that have gone have a command each. */
const COMMANDS_MAX = 5;

/** A longer name is written smaller. */
const LONG = 24;

let drawn = "";
let linked = "";

/** Draws what does not change by itself. */
export function showLeader(state) {
  const leader = state.leader ?? state.last_known_leader;
  text("leader-node", leader ? leader.node : state.answerer.is_outdated ? UNKNOWN : "none");
  attribute(byId("leader-node"), "class", leader?.node.length > LONG ? "long" : null);
  byId("leader-mine").hidden = !leader || leader.node !== state.answerer.node;
  showPages(state, leader);
  text("leader-address", or(leader?.address));
  text("leader-token", or(leader?.token));
  text("leader-ttl", leader ? span(leader.lease_ttl_secs * 1000) : UNKNOWN);
  text("leader-lease", or(leader?.lease));
  text("leader-transitions", or(leader?.transitions));
  showBudget(state.failover_budget, state);
  showCommands(state);
}

/** The ways to the pages of the other members. */
function showPages(state, leader) {
  const others = state.members.filter((member) => member.node !== state.answerer.node && pageOf(member)).toSorted((a, b) => naturally(a.node, b.node));
  const link = byId("leader-page");
  const leads = others.find((member) => member.node === leader?.node);
  link.hidden = !leads;
  if (leads) attribute(link, "href", pageOf(leads));
  const key = JSON.stringify(others.map((member) => [member.node, pageOf(member)]));
  if (key === linked) return;
  linked = key;
  byId("pages").hidden = others.length === 0;
  byId("pages").replaceChildren("Other pages: ", ...others.flatMap((member, i) => [i > 0 ? " · " : "", h("a", { href: pageOf(member) }, member.node)]));
}

/** What an operator would do next, ready to be copied: this page only shows. */
function showCommands(state) {
  const { leader, gone, answerer } = state;
  const self = state.members.find((member) => member.node === answerer.node);
  const meta = leader?.address ?? self?.rpc_address;
  const commands = [];
  if (leader && state.members.length > 1) commands.push(["Hand over to another member", `metad step-down --meta ${meta}`]);
  if (meta && state.freeze) commands.push(["End the freeze", `metad unfreeze --meta ${meta}`]);
  if (meta) commands.push(["Examine everything", `metad doctor --meta ${meta}`]);
  for (const { node } of gone.slice(0, COMMANDS_MAX)) commands.push([`Free what ${node} still holds, if it is certainly dead${where(state)}`, release(node, state)]);
  const key = JSON.stringify(commands);
  if (key === drawn) return;
  drawn = key;
  byId("commands").replaceChildren(...commands.flatMap(([what, command]) => [h("p", { class: "muted" }, what), copyable(command, what)]));
}

/** It speaks to the store itself, and needs what the nodes have to reach it. */
function release(node, { store, answerer }) {
  const endpoints = store.endpoints.map(({ endpoint }) => endpoint).join(",");
  const reach = store.kind === "etcd" ? ` --cluster ${answerer.cluster} --etcd-endpoints ${endpoints}` : "";
  return `metad release --node ${node} --it-is-dead${reach}`;
}

const where = ({ store }) => (store.kind === "etcd" ? "" : " (on its machine, with the settings of metad serve)");

function showBudget(budget, state) {
  if (budget && state.members.length < 2) {
    for (const id of ["budget-planned", "budget-process", "budget-machine"]) text(id, "no other member is registered");
    return;
  }
  text("budget-planned", !budget ? UNKNOWN : budget.planned_ms ? `one write, about ${span(budget.planned_ms)}` : "one write");
  text("budget-process", budget ? "milliseconds, if its guardian runs" : UNKNOWN);
  text("budget-machine", budget ? `at most ${seconds(budget.machine_ms)}` : UNKNOWN);
}

/**
 * Draws what drains and ages. `late`: how long ago the state arrived; `nowMs`: the node's clock; `isOld`: what is
 * known may not be so any more.
 */
export function showLease(state, late, nowMs, isOld) {
  const { leader, last_known_leader: last } = state;
  text("leader-since", leader ? since(leader, nowMs, isOld) : last ? since(last, nowMs, true) : sinceNobody(state));
  const bar = leader && (leader.node === state.answerer.node && state.lease ? ownLease(state.lease, late) : othersLease(state, late));
  drawBar(bar);
}

function since(leader, nowMs, isOld) {
  const acquired = moment(leader.acquired);
  const began = clock(acquired, nowMs);
  return isOld ? `led when last seen, since ${began}` : `leads for ${span(nowMs - acquired)}, since ${began}`;
}

function sinceNobody(state) {
  if (state.freeze) return "the election is frozen";
  return state.foreign ? `the key ${state.foreign.key} prevents every claim` : "no leader is known";
}

/** This node leads: it knows its lease exactly. */
function ownLease(lease, late) {
  const left = Math.max(0, lease.remaining_ms - late);
  const until = Math.max(0, left - lease.stop_budget_ms);
  return {
    part: left / lease.ttl_ms,
    mark: lease.stop_budget_ms / lease.ttl_ms,
    words: `${seconds(left)} of ${seconds(lease.ttl_ms)} left · without a renewal the main loop stops in ${seconds(until)}`,
  };
}

/** Another leads: its lease was alive when this node last heard of it, and lasts from then on at most. */
function othersLease(state, late) {
  const old = state.answerer.age_ms + late;
  const ttl = state.leader.lease_ttl_secs * 1000;
  return {
    part: Math.max(0, 1 - old / ttl),
    mark: 0,
    words: `lease of ${seconds(ttl)} · this node saw it ${age(old)} ago`,
  };
}

function drawBar(bar) {
  const part = bar ? Math.min(1, bar.part) : 0;
  byId("lease-fill").style.transform = `scaleX(${part.toFixed(4)})`;
  byId("lease").dataset.level = part > 0.5 ? "good" : part > 0.33 ? "warn" : "bad";
  const mark = byId("lease-mark");
  mark.hidden = !bar?.mark;
  mark.style.left = `${((bar?.mark ?? 0) * 100).toFixed(2)}%`;
  attribute(byId("lease"), "aria-valuenow", Math.round(part * 100));
  attribute(byId("lease"), "aria-valuetext", bar ? bar.words : "no lease");
  text("lease-text", bar ? bar.words : "");
}
