// The store: each member of etcd as this node sees it, and what was measured of it against the limits.

import { byId, rows, text } from "./dom.js";
import { UNKNOWN, age, bytes, moment, or, span, stateOf } from "./format.js";

/** The checks that say how well etcd does: answers, disk, round trips, room. */
const LIMITS = ["ETCD_001", "ETCD_005", "ETCD_006", "ETCD_007", "ETCD_008", "ETCD_009", "ETCD_010"];

/** `checks`: the document of the checks, or null. */
export function showStore(state, nowMs, checks) {
  const { kind, endpoints } = state.store;
  text("etcd-title", kind === "etcd" ? "etcd" : "Store");
  text("etcd-text", kind === "etcd" ? summary(endpoints) : "An embedded SQLite file: the election is among the processes of this machine.");
  byId("etcd-table").hidden = endpoints.length === 0;
  const facts = Object.fromEntries((checks?.etcd ?? []).map((fact) => [fact.endpoint, fact]));
  rows(byId("etcd-rows"), endpoints.map((endpoint) => row(endpoint, facts[endpoint.endpoint] ?? {}, nowMs)));
  showLimits(checks?.findings ?? []);
}

function summary(endpoints) {
  if (endpoints.length === 0) return "This node has not probed etcd’s members yet.";
  const up = endpoints.filter((endpoint) => endpoint.up).length;
  if (up === 0) return "✕ No etcd member answers this node.";
  return `${up} of ${endpoints.length} answer this node. Each is probed with a read that needs etcd’s majority.`;
}

function row(endpoint, fact, nowMs) {
  const number = (words) => ({ text: words, kind: "number" });
  const leads = fact.is_leader ? ", leads etcd" : "";
  return [
    { text: endpoint.endpoint.replace(/^https?:\/\//, ""), title: fact.name },
    condition(endpoint, leads),
    number(span(endpoint.rtt_ms)),
    number(endpoint.answered ? `${age(nowMs - moment(endpoint.answered))} ago` : "never"),
    number(span(fact.fsync_p99_ms)),
    number(span(fact.commit_p99_ms)),
    number(database(fact)),
    { text: or(fact.version) },
  ];
}

/** What is wrong with it, in the words of the verdict and the doctor; how to mend that is its title. */
function condition({ up, finding, fix }, leads) {
  if (up && !finding) return { text: `✓ answers${leads}`, kind: "state good" };
  return { text: `✕ ${or(finding)}`, kind: "state bad", title: fix };
}

function database(fact) {
  if (fact.db_bytes == null) return UNKNOWN;
  return fact.quota_bytes ? `${bytes(fact.db_bytes)} of ${bytes(fact.quota_bytes)}` : bytes(fact.db_bytes);
}

function showLimits(findings) {
  const of = findings.filter((finding) => LIMITS.includes(finding.code));
  byId("etcd-limits-box").hidden = of.length === 0;
  rows(byId("etcd-limits"), of.map((finding) => {
    const { shape, word } = stateOf(finding.status);
    return [
      { text: finding.title, title: finding.code },
      { text: `${shape} ${word}`, kind: `state ${finding.status}` },
      { text: or(finding.measured) },
      { text: or(finding.limit) },
    ];
  }));
}
