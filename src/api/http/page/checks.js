// The checks: what fails first, each with what to do about it.

import { byId, copyable, h, text } from "./dom.js";
import { age, count, moment, or, stateOf } from "./format.js";

const ORDER = ["fail", "warn", "unknown", "pass"];

let drawn = "";

/** How many findings there are of each status. */
export function tally(findings) {
  const of = (status) => findings.filter((finding) => finding.status === status).length;
  return { fail: of("fail"), warn: of("warn"), unknown: of("unknown"), pass: of("pass") };
}

/** `answer`: what the node said, or why it said nothing. */
export function showChecks(answer, nowMs) {
  const findings = answer.data?.findings ?? [];
  text("checks-text", headline(answer, findings, nowMs));
  text("checks-count", findings.length > 0 ? words(tally(findings)) : "");
  const key = JSON.stringify([findings, !answer.data?.at]);
  if (key === drawn) return;
  drawn = key;
  draw(findings);
  showAdvice(answer, findings.find((finding) => finding.code === "LEASE_006"));
}

/** What this node has recorded says about its lease. */
function showAdvice(answer, finding) {
  const parts = finding ? [`${stateOf(finding.status).shape} ${finding.measured}. `, explained(finding)] : ["Too little is recorded to say whether the lease fits. On this node’s machine: ", h("code", {}, "metad advise lease")];
  byId("advice").replaceChildren(...(answer.data?.at ? parts : []));
}

function headline(answer, findings, nowMs) {
  if (answer.absent) return "Not available on this node. Run metad doctor on its machine.";
  if (answer.failed) return `No data from this node: ${answer.failed}.`;
  if (!answer.data) return "Querying this node…";
  if (!answer.data.at) return findings.length > 0 ? "All checks have not been run yet; what is known:" : "This node has not run its checks yet.";
  const open = findings.some((finding) => finding.status !== "pass");
  return `Run ${age(nowMs - moment(answer.data.at))} ago.${open ? "" : " Nothing is wrong."}`;
}

function words(counts) {
  const named = ORDER.filter((status) => counts[status] > 0);
  return named.map((status) => `${stateOf(status).shape} ${counts[status]} ${stateOf(status).word}`).join(" · ");
}

function draw(findings) {
  const rank = (finding) => ORDER.indexOf(finding.status);
  const open = findings.filter((finding) => finding.status !== "pass").sort((a, b) => rank(a) - rank(b));
  const passed = findings.filter((finding) => finding.status === "pass");
  byId("checks-open").replaceChildren(...open.map(card));
  byId("checks-passed-box").hidden = passed.length === 0;
  text("checks-passed-count", `${count(passed.length, "check")} passed`);
  byId("checks-passed").replaceChildren(...passed.map(line));
}

function card(finding) {
  const { shape, word } = stateOf(finding.status);
  return h(
    "li",
    { class: `finding ${finding.status}` },
    h(
      "p",
      { class: "finding-head" },
      h("span", { class: "state" }, `${shape} ${word}`),
      " ",
      h("strong", {}, finding.title),
      " ",
      explained(finding),
    ),
    h("p", {}, or(finding.measured), finding.limit ? h("span", { class: "muted" }, ` · limit: ${finding.limit}`) : null),
    finding.why ? h("p", { class: "muted" }, `Why it matters: ${finding.why}`) : null,
    finding.fix ? copyable(finding.fix, `the fix for ${finding.code}`) : null,
  );
}

/** The code, and the way to what the binary says of it. */
const explained = ({ code }) => h("a", { href: `/explain/${code}` }, h("code", { class: "code" }, code));

function line(finding) {
  return h("li", {}, h("span", { class: "state good" }, "✓ "), finding.title, " ", explained(finding), h("span", { class: "muted" }, ` ${finding.measured ?? ""}`));
}
