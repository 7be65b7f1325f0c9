// How much of this node's lease was left at each renewal, with the lines that should not be crossed.

import { byId, text } from "./dom.js";
import { clock, ratio } from "./format.js";

/** Below it one missed renewal more may cost the lease. */
export const DANGER = 0.33;
const WARN = 0.5;
const HEIGHT = 190;

// A classic script, loaded before this module.
const { uPlot } = globalThis;

let chart = null;
let shown = null;

/** Points are [unix seconds, least, median]. `window`: from when to when, in the same seconds. */
export function showHeadroom(series, range, window) {
  shown = { series, range, window };
  const [at, least, median] = columns(series);
  summarize(series.points, range);
  byId("headroom-chart").hidden = at.length < 2;
  if (at.length < 2) return;
  if (!chart) chart = new uPlot(options(), [at, least, median], byId("headroom-chart"));
  else chart.setData([at, least, median]);
}

/** The least of all points, for the table of members. */
export function leastOf(series) {
  const values = (series?.points ?? []).map((point) => point[1]);
  return values.length > 0 ? Math.min(...values) : null;
}

/** Draws again in the width and the colours that there are now. */
export function redrawHeadroom() {
  chart?.destroy();
  chart = null;
  if (shown) showHeadroom(shown.series, shown.range, shown.window);
}

/** A step without a renewal is a hole in the line, not a bridge over it. */
function columns(series) {
  const [at, least, median] = [[], [], []];
  const hole = series.step_secs * 3;
  series.points.forEach(([secs, min, mid]) => {
    if (at.length > 0 && secs - at.at(-1) > hole) {
      at.push(at.at(-1) + series.step_secs);
      least.push(null);
      median.push(null);
    }
    at.push(secs);
    least.push(min);
    median.push(mid);
  });
  return [at, least, median];
}

function summarize(points, range) {
  if (points.length === 0) {
    text("headroom-summary", "Nothing was renewed in this time.");
    return;
  }
  const worst = points.reduce((a, b) => (b[1] < a[1] ? b : a));
  const below = points.filter((point) => point[1] < DANGER).length;
  const danger = below > 0 ? ` · ▲ below ${DANGER} in ${below} of ${points.length} steps` : ` · never below ${DANGER}`;
  text("headroom-summary", `Part of the lease that was left when a renewal was confirmed, last ${range}: least ${ratio(worst[1])} at ${clock(worst[0] * 1000)}${danger}`);
}

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function options() {
  const axis = { stroke: color("--muted"), grid: { stroke: color("--line"), width: 1 }, ticks: { stroke: color("--line") }, font: "12px system-ui, sans-serif" };
  return {
    width: byId("headroom-chart").clientWidth,
    height: HEIGHT,
    legend: { show: false },
    tzDate: (secs) => uPlot.tzDate(new Date(secs * 1000), "Etc/UTC"),
    cursor: { y: false, drag: { x: false, y: false } },
    scales: { x: { range: () => shown.window }, y: { range: [0, 1] } },
    series: [
      {},
      { label: "least", stroke: color("--accent"), width: 1.5, fill: color("--accent-faint"), points: { show: false } },
      { label: "median", stroke: color("--muted"), width: 1, dash: [3, 3], points: { show: false } },
    ],
    axes: [{ ...axis, values: times }, { ...axis, size: 44, splits: () => [0, 0.25, 0.5, 0.75, 1] }],
    hooks: { drawAxes: [lines], setCursor: [readOut] },
  };
}

function times(_, splits, __, ___, step) {
  return splits.map((secs) => {
    const iso = new Date(secs * 1000).toISOString();
    return step < 60 ? iso.slice(11, 19) : iso.slice(11, 16);
  });
}

function lines(plot) {
  line(plot, WARN, color("--warn"), [6, 4], "close");
  line(plot, DANGER, color("--bad"), [], "danger");
}

function line(plot, value, stroke, dash, word) {
  const { ctx, bbox } = plot;
  const y = plot.valToPos(value, "y", true);
  ctx.save();
  ctx.strokeStyle = stroke;
  ctx.fillStyle = stroke;
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash(dash.map((n) => n * devicePixelRatio));
  ctx.beginPath();
  ctx.moveTo(bbox.left, y);
  ctx.lineTo(bbox.left + bbox.width, y);
  ctx.stroke();
  ctx.textAlign = "left";
  ctx.font = `${12 * devicePixelRatio}px system-ui, sans-serif`;
  ctx.fillText(`${word} ${value}`, bbox.left + 6, y + 14 * devicePixelRatio);
  ctx.restore();
}

function readOut(plot) {
  const i = plot.cursor.idx;
  const [at, least, median] = plot.data;
  const words = i == null || least[i] == null ? "" : `${clock(at[i] * 1000)}: least ${ratio(least[i])}, median ${ratio(median[i])}`;
  text("headroom-at", words);
}
