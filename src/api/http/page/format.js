// Numbers, times and states as people read them.

export const UNKNOWN = "–";

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

const known = (value) => value !== undefined && value !== null && !Number.isNaN(value);

/** A time of a document in milliseconds since the Unix epoch; what is unknown stays so. */
export const moment = (time) => (known(time) ? Date.parse(time) : null);

/** A span: 1.9 ms, 0.4 s, 12 s, 3 min 5 s, 2 h 4 min, 3 d 4 h. */
export function span(ms) {
  if (!known(ms)) return UNKNOWN;
  const value = Math.max(0, ms);
  if (value < 100) return `${value < 10 ? round(value, 1) : Math.round(value)} ms`;
  if (value < 10 * SECOND) return `${(value / SECOND).toFixed(1)} s`;
  if (value < MINUTE) return `${Math.floor(value / SECOND)} s`;
  if (value < HOUR) return pair(value, MINUTE, "min", SECOND, "s");
  if (value < DAY) return pair(value, HOUR, "h", MINUTE, "min");
  return pair(value, DAY, "d", HOUR, "h");
}

/** A lease, and what is left of it: tenths of a second count. */
export function seconds(ms) {
  return ms < 100 * SECOND ? `${(ms / SECOND).toFixed(1)} s` : span(ms);
}

/** An age, to the second: it counts up while somebody looks. */
export function age(ms) {
  if (!known(ms)) return UNKNOWN;
  return ms < 10 * SECOND ? `${(Math.max(0, ms) / SECOND).toFixed(1)} s` : span(ms);
}

/** As `age`, without what is too small to matter. */
export function rough(ms) {
  return age(known(ms) && ms >= MINUTE ? Math.floor(ms / MINUTE) * MINUTE : ms);
}

function pair(value, big, bigName, small, smallName) {
  const rest = Math.floor((value % big) / small);
  return `${Math.floor(value / big)} ${bigName}` + (rest > 0 ? ` ${rest} ${smallName}` : "");
}

function round(value, digits) {
  return String(Number(value.toFixed(digits)));
}

/** 10:00:03, with the day if it is another one than `today`. */
export function clock(ms, today = Date.now()) {
  if (!known(ms)) return UNKNOWN;
  const iso = new Date(ms).toISOString();
  const time = iso.slice(11, 19);
  return iso.slice(0, 10) === new Date(today).toISOString().slice(0, 10) ? time : `${iso.slice(0, 10)} ${time}`;
}

export function bytes(n) {
  if (!known(n)) return UNKNOWN;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = n < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(n) / 10));
  const value = n / 2 ** (10 * power);
  return `${value < 10 && power > 0 ? round(value, 1) : Math.round(value)} ${units[power]}`;
}

export function ratio(x) {
  return known(x) ? x.toFixed(2) : UNKNOWN;
}

export function percent(x) {
  if (!known(x)) return UNKNOWN;
  return `${x < 10 ? x.toFixed(1) : Math.round(x)} %`;
}

export function signed(ms) {
  if (!known(ms)) return UNKNOWN;
  return ms === 0 ? "0 ms" : `${ms < 0 ? "−" : "+"}${span(Math.abs(ms))}`;
}

export function or(value) {
  return known(value) && value !== "" ? String(value) : UNKNOWN;
}

/** Short forms of these names, by name; what two would share, both keep in full. */
export function shortened(names, most) {
  const short = Object.fromEntries(names.map((name) => [name, shorten(name, most)]));
  const times = (form) => Object.values(short).filter((other) => other === form).length;
  return Object.fromEntries(Object.entries(short).map(([name, form]) => [name, times(form) > 1 ? name : form]));
}

/** What tells names apart is at their end more often than in the middle. */
function shorten(name, most) {
  if (name.length <= most) return name;
  const head = Math.ceil((most - 1) / 2);
  return `${name.slice(0, head)}…${name.slice(name.length - (most - 1 - head))}`;
}

/** meta-2 before meta-10. */
export const naturally = new Intl.Collator("en", { numeric: true }).compare;

/** The same moment where the reader is; nothing, where that is UTC. */
export function local(ms) {
  if (!known(ms) || new Date(ms).getTimezoneOffset() === 0) return "";
  return `${new Date(ms).toLocaleTimeString()} local time`;
}

/** "1 change", "2 changes". */
export function count(n, one, many = `${one}s`) {
  return `${n} ${n === 1 ? one : many}`;
}

/** A shape and a word for a state: colour alone says nothing to many. */
export const STATES = {
  pass: { shape: "✓", word: "passed" },
  warn: { shape: "▲", word: "warning" },
  fail: { shape: "✕", word: "failed" },
  unknown: { shape: "?", word: "unknown" },
};

export const stateOf = (name) => STATES[name] ?? STATES.unknown;
