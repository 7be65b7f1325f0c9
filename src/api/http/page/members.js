// The members: those that are registered, and those that have gone within the last hour.

import { byId, rows, text } from "./dom.js";
import { UNKNOWN, age, bytes, count, moment, naturally, or, percent, ratio, rough, shortened, signed, span } from "./format.js";

/** A longer name would push the other columns out of sight. */
const NAME_MAX = 24;

const ROLES = {
  leader: "★ leader",
  follower: "● follower",
  claiming: "◐ claiming",
  starting: "◐ starting",
  stopping: "◐ stopping",
  stopped: "○ stopped",
  joining: "◌ joining",
  unknown: "? unknown",
};

/**
 * `extra.cpu`: this node's share of a CPU in percent; `extra.headroom`: the least of the last hour;
 * `extra.members`: what the checks measured of each member, by node id.
 */
export function showMembers(state, late, nowMs, extra) {
  const names = shortened([...state.members, ...state.gone].map((member) => member.node), NAME_MAX);
  const there = state.members.toSorted(byName).map((member) => there_(member, state, late, { ...extra, names }));
  const gone = state.gone.toSorted(byName).map((member) => goneRow(member, nowMs, names));
  rows(byId("members-rows"), [...there, ...gone]);
  const words = [count(state.members.length, "registered", "registered")];
  if (gone.length > 0) words.push(`${gone.length} gone`);
  text("members-count", words.join(", "));
}

function there_(member, state, late, extra) {
  const mine = member.node === state.answerer.node;
  const measured = extra.members[member.node] ?? {};
  return [
    { text: mine ? `${extra.names[member.node]} (this node)` : extra.names[member.node], link: mine ? null : pageOf(member), title: `${member.node}\ngRPC ${member.rpc_address}\nHTTP ${member.http_address}\nuuid ${member.uuid}\nstart ${member.incarnation}` },
    { text: role(member), kind: member.is_leader ? "role leads" : "role" },
    number(mine ? "now" : age(state.answerer.age_ms + late)),
    number(mine ? UNKNOWN : span(measured.rtt_ms)),
    number(mine ? UNKNOWN : signed(measured.skew_ms)),
    number(percent(mine ? extra.cpu : measured.cpu_percent)),
    number(bytes(mine ? state.process?.rss_bytes : measured.rss_bytes)),
    number(ratio(mine ? extra.headroom : measured.headroom)),
    number(member.priority === 0 ? "0 (never leads)" : or(member.priority)),
    { text: or(member.version), kind: member.version === state.answerer.version ? "" : "differs" },
  ];
}

function goneRow(member, nowMs, names) {
  const dashes = Array.from({ length: 7 }, () => number(UNKNOWN));
  return [
    { text: names[member.node], kind: "gone", title: member.node },
    { text: "✕ gone", kind: "role gone" },
    number(rough(nowMs - moment(member.since))),
    ...dashes.slice(0, 6),
    { text: UNKNOWN },
  ];
}


function role(member) {
  if (member.is_leader && member.role !== "leader") return `★ leader, ${member.role}`;
  return ROLES[member.role] ?? member.role;
}

const byName = (a, b) => naturally(a.node, b.node);

const number = (words) => ({ text: words, kind: "number" });

/** Another node's page; nobody can follow a loopback address to another machine, and ours is not another's. */
export function pageOf(member) {
  const isLocal = (host) => host.startsWith("127.") || host.startsWith("[::1]") || host.startsWith("localhost");
  const address = member.http_address;
  if (!address || address === location.host || (isLocal(address) && !isLocal(location.host))) return null;
  return `${location.protocol}//${address}/`;
}
