// A plot of the traces found: duration over start time, one dot with a link for each.

import { svg } from "./dom.js";
import * as format from "./format.js";
import { rowShade } from "./outcome.js";

const HEIGHT = 96;
const MARGIN = { left: 64, right: 16, top: 10, bottom: 20 };

/** Draw the traces into the figure; hide it if there are fewer than three. */
export function plot(figure, traces) {
  figure.hidden = traces.length < 3;
  if (figure.hidden) return;
  const width = figure.clientWidth || 1000;
  const first = traces.reduce((least, trace) => Math.min(least, trace.start), Infinity);
  const last = traces.reduce((most, trace) => Math.max(most, trace.start), first + 1);
  const longest = traces.reduce((most, trace) => Math.max(most, trace.duration), 1);
  const x = (start) => MARGIN.left + ((start - first) / (last - first)) * (width - MARGIN.left - MARGIN.right);
  const rise = scale(traces, longest);
  const y = (took) => HEIGHT - MARGIN.bottom - rise(took) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  figure.replaceChildren(
    svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, role: "img" },
      ...[0, 0.5, 1].map((share) => gridLine(y(rise.inverse(share)), width, format.duration(rise.inverse(share)))),
      ...[first, last].map((at, i) => label(x(at), HEIGHT - 5, format.time(at), i ? "end" : "start")),
      [...traces].sort((a, b) => b.duration - a.duration).map((trace) => dot(trace, x, y))),
  );
}

/** Maps durations to fractions of the height. Logarithmic if a linear scale would flatten most of them. */
function scale(traces, longest) {
  const took = traces.map((trace) => Math.max(1, trace.duration)).sort((a, b) => a - b);
  const shortest = took[0];
  if (longest < 12 * took[Math.floor(took.length / 2)]) return Object.assign((t) => t / longest, { inverse: (share) => share * longest });
  const span = Math.log(longest / shortest);
  return Object.assign((t) => Math.log(Math.max(t, shortest) / shortest) / span, { inverse: (share) => shortest * Math.exp(share * span) });
}

function gridLine(y, width, text) {
  return svg("g", { class: "grid" }, svg("line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: y, y2: y }), label(MARGIN.left - 8, y + 4, text, "end"));
}

function label(x, y, text, anchor) {
  const node = svg("text", { x, y, "text-anchor": anchor });
  node.textContent = text;
  return node;
}

function dot(trace, x, y) {
  const radius = Math.min(9, 3 + Math.sqrt(trace.spans) / 2);
  const title = svg("title");
  title.textContent = `${trace.service}: ${trace.operation}, ${format.duration(trace.duration)}`;
  return svg("a", { href: `/trace/${trace.traceID}`, tabindex: "-1" },
    svg("circle", { cx: x(trace.start), cy: y(trace.duration), r: radius, class: `dot ${rowShade(trace)}` }, title));
}
