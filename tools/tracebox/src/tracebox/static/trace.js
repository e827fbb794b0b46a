// One trace: its facts, its overview, its waterfall and the details of the selected span.

import { hue } from "./colours.js";
import { hideDetail, showDetail } from "./detail.js";
import { byId, el, getJson, shortened } from "./dom.js";
import * as format from "./format.js";
import { describe, shade } from "./outcome.js";
import { brush, overview } from "./overview.js";
import { buildTree } from "./tree.js";
import { Waterfall } from "./waterfall.js";

const PATIENCE_MS = 10_000; // spans are exported in batches: a new trace may need some seconds to arrive
const AGAIN_MS = 1000;

const GONE = [
  "This trace may be gone",
  "It was not sampled: then it has an id, but its spans are not exported.",
  "It was evicted: tracebox keeps traces only in memory. It drops the oldest when it is full, and all when it stops.",
  "The id is wrong.",
];
const MAX_LEGEND = 50; // services
const NO_ID = ["This is not a trace id", "A trace id has up to 32 hexadecimal digits."];

/** Show the trace with this id; waits some seconds if it has not arrived. */
export async function showTrace(id) {
  byId("trace").hidden = false;
  byId("back").search = sessionStorage.getItem("search") ?? "";
  document.title = `${id.slice(0, 8)} · tracebox`;
  const trace = /^[0-9a-f]{1,32}$/i.test(id) ? await load(id) : sayMissing(id, { status: 400 });
  if (!trace) return;
  byId("looking").hidden = true;
  byId("shown").hidden = false;
  show(trace);
}

async function load(id) {
  const deadline = performance.now() + PATIENCE_MS;
  for (;;) {
    try {
      const trace = (await getJson(`/api/traces/${encodeURIComponent(id)}`)).data[0];
      return trace.spans.length ? trace : sayMissing(id, { status: 404 }); // it was dropped while it was read
    } catch (error) {
      if (error.status !== 404 || performance.now() >= deadline) return sayMissing(id, error);
      sayWaiting(id);
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    }
  }
}

function sayWaiting(id) {
  byId("looking").replaceChildren(el("strong", { text: "Waiting for the trace…" }), el("br"), el("code", { text: shortened(id, 100) }), el("br"), "Spans arrive in batches, a second or two after the request.");
}

function sayMissing(id, error) {
  const [title, ...why] = error.status === 404 ? GONE : error.status === 400 ? NO_ID : ["The trace cannot be shown", `tracebox did not respond: ${error.message}`];
  byId("looking").replaceChildren(
    el("h2", { text: title }), el("p", {}, el("code", { text: shortened(id, 100) })),
    el("ul", { class: "reasons" }, ...why.map((text) => el("li", { text }))),
    el("p", {}, el("button", { type: "button", class: "primary", text: "Try again", onclick: () => location.reload() }), " ", el("a", { href: "/search", text: "See all traces" })));
  return null;
}

function show(trace) {
  const tree = buildTree(trace);
  showHead(trace, tree);
  const go = (spanID) => {
    const node = tree.nodes.find((candidate) => candidate.span.spanID === spanID);
    if (node) waterfall.reveal(node);
    if (node) open(node);
  };
  const close = () => {
    hideDetail();
    history.replaceState(null, "", location.pathname);
    waterfall.rows.focus({ preventScroll: true });
    waterfall.redraw();
  };
  const open = (node) => {
    showDetail(node, { onGo: go, onClose: close });
    history.replaceState(null, "", `#${node.span.spanID}`);
    waterfall.redraw();
  };
  const waterfall = new Waterfall(tree, open, close);
  waterfall.onMove = (node) => byId("detail").hidden || open(node);
  overview(tree, (from, to) => zoom(from, to));
  const zoom = (from, to) => {
    waterfall.zoom(from, to);
    brush(from / tree.length, to / tree.length);
    byId("unzoom").hidden = from <= 0 && to >= tree.length;
  };
  byId("unzoom").addEventListener("click", () => zoom(0, tree.length));
  byId("collapse").addEventListener("click", () => waterfall.foldAll(true));
  byId("expand").addEventListener("click", () => waterfall.foldAll(false));
  byId("needle").addEventListener("input", () => search(tree, waterfall));
  byId("needle").addEventListener("keydown", (event) => event.key === "Enter" && nextHit(waterfall));
  if (location.hash) go(location.hash.slice(1));
}

function showHead(trace, tree) {
  const root = tree.nodes[0];
  const of = (color) => tree.nodes.filter((node) => shade(node.outcome.kind) === color).length;
  document.title = `${shortened(root.service, 100)}: ${shortened(root.span.operationName, 100)} · tracebox`;
  byId("root-service").textContent = root.service;
  byId("root-service").style.setProperty("--h", hue(root.service));
  byId("root-operation").textContent = shortened(root.span.operationName, 300);
  const spans = new Map();
  for (const node of tree.nodes) spans.set(node.service, (spans.get(node.service) ?? 0) + 1);
  const depth = tree.nodes.reduce((most, node) => Math.max(most, node.depth + 1), 0);
  byId("facts").replaceChildren(
    fact("Started", format.timestamp(tree.origin)), fact("Duration", format.duration(tree.length)),
    fact("Spans", format.count(tree.nodes.length)), fact("Services", format.count(spans.size)), fact("Depth", format.count(depth)),
    ...(describe(root.outcome) ? [fact("Status", describe(root.outcome), shade(root.outcome.kind))] : []),
    fact("Errors", format.count(of("bad")), of("bad") ? "bad" : ""),
    ...(of("warn") ? [fact("Client errors", format.count(of("warn")), "warn")] : []), fact("Trace id", traceId(trace.traceID)));
  const chips = [...spans].slice(0, MAX_LEGEND).map(([name, n]) => el("span", { class: "chip", style: { "--h": hue(name) } }, shortened(name, 300), el("small", { text: format.count(n) })));
  byId("legend").replaceChildren(...chips, ...(spans.size > MAX_LEGEND ? [`and ${format.plural(spans.size - MAX_LEGEND, "other service")}`] : []));
  byId("orphans").hidden = !tree.orphans;
  byId("orphans").replaceChildren(`${format.plural(tree.orphans, "span")} without their parent span. If the trace is new, more spans may still arrive. `, el("a", { href: location.href, text: "Reload" }));
}

const fact = (name, value, className = "") => el("div", {}, el("dt", { text: name }), el("dd", { class: className }, value));

function traceId(id) {
  const copy = el("button", { type: "button", class: "link", text: "copy", onclick: () => navigator.clipboard?.writeText(id).then(() => (copy.textContent = "copied")) });
  return el("span", {}, el("code", { text: id }), " ", copy, " ", el("a", { href: `/api/traces/${id}?prettyPrint=true`, text: "JSON" }));
}

function search(tree, waterfall) {
  const needle = byId("needle").value.trim().toLowerCase();
  const has = (text) => String(text).toLowerCase().includes(needle);
  const found = (node) => has(node.service) || has(node.span.operationName) || has(node.span.spanID) || node.span.tags.some((tag) => has(tag.key) || has(tag.value));
  const hits = needle ? new Set(tree.nodes.filter(found)) : null;
  byId("hits").textContent = hits ? `${format.plural(hits.size, "span")}, Enter for the next` : "";
  waterfall.mark(hits);
}

function nextHit(waterfall) {
  const hits = [...(waterfall.hits ?? [])];
  if (!hits.length) return;
  waterfall.reveal(hits.find((node) => node.index > waterfall.current.index) ?? hits[0]);
}
