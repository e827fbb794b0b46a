// The details of one span.

import { hue } from "./colours.js";
import { breakable, byId, el } from "./dom.js";
import * as format from "./format.js";
import { describe, shade } from "./outcome.js";

const MAX_ROWS = 1000; // of a table or a list
const SHOWN_ELSEWHERE = new Set(["error", "otel.scope.name", "otel.scope.version", "otel.status_code", "otel.status_description", "span.kind"]);

/** Show the node. A link to another span of the trace calls `onGo(spanID)`, the close button calls `onClose()`. */
export function showDetail(node, { onGo, onClose }) {
  const { span } = node;
  byId("detail").hidden = false;
  const parts = [
    el("header", { style: { "--h": hue(node.service) } },
      el("span", { class: "chip", text: node.service, style: { "--h": hue(node.service) } }),
      el("button", { type: "button", class: "close", "aria-label": "Close the details", text: "×", onclick: onClose }),
      el("h2", {}, ...breakable(span.operationName))),
    ending(node),
    ...(span.warnings ?? []).slice(0, MAX_ROWS).map((text) => el("p", { class: "notice", text })),
    facts(node),
    table("Attributes", span.tags.filter((tag) => !SHOWN_ELSEWHERE.has(tag.key))),
    events(node),
    links(node, onGo),
    table("Process", node.process?.tags ?? []),
  ];
  byId("detail").replaceChildren(...parts.filter(Boolean));
  byId("detail").scrollTop = 0;
}

export function hideDetail() {
  byId("detail").hidden = true;
}

function ending({ outcome, tags }) {
  if (!outcome.kind) return null;
  const description = tags.get("otel.status_description");
  const what = describe(outcome);
  return el("p", { class: `notice ${shade(outcome.kind)}` }, el("b", { text: what[0].toUpperCase() + what.slice(1) }), description ? `: ${description}` : "");
}

function facts(node) {
  const self = node.span.duration - covered(node);
  const rows = [
    ["Duration", format.duration(node.span.duration)],
    ["Own time", node.children.length ? format.duration(self) : null],
    ["Starts at", format.duration(node.start)],
    ["Kind", node.tags.get("span.kind")],
    ["Status", node.tags.get("otel.status_code")],
    ["Span id", el("code", { text: node.span.spanID })],
    ["Instrumentation", [node.tags.get("otel.scope.name"), node.tags.get("otel.scope.version")].filter(Boolean).join(" ")],
  ];
  return el("dl", { class: "facts" }, ...rows.filter(([, value]) => value).map(([name, value]) => el("div", {}, el("dt", { text: name }), el("dd", {}, value))));
}

/** The part of the span's time that its children cover; overlaps count once. */
function covered(node) {
  let total = 0;
  let until = node.start;
  for (const child of [...node.children].sort((a, b) => a.start - b.start)) {
    const from = Math.max(until, child.start);
    const to = Math.min(node.end, child.end);
    if (to > from) [total, until] = [total + to - from, to];
  }
  return total;
}

function table(title, tags) {
  if (!tags.length) return null;
  return el("section", {}, el("h3", {}, title, el("small", { text: format.count(tags.length) })),
    el("table", {}, el("tbody", {}, tags.slice(0, MAX_ROWS).map((tag) => el("tr", {}, el("th", { scope: "row" }, ...breakable(tag.key)), el("td", {}, value(tag)))))), more(tags));
}

/** How many items are not shown. */
const more = (items) => (items.length > MAX_ROWS ? el("p", { class: "dim", text: `and ${format.count(items.length - MAX_ROWS)} more` }) : null);

function value(tag) {
  const text = String(tag.value);
  const long = text.length > 160 || text.includes("\n");
  const kind = tag.type === "string" ? "" : "literal";
  return long ? el("pre", { text: pretty(text) }) : el("span", { class: kind }, ...breakable(text));
}

function pretty(text) {
  if (!/^[[{]/.test(text)) return text;
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

function events(node) {
  const { logs } = node.span;
  if (!logs.length) return null;
  return el("section", {}, el("h3", {}, "Events", el("small", { text: format.count(logs.length) })),
    logs.slice(0, MAX_ROWS).map((log, index) => event(log, node, index)), more(logs));
}

function event(log, node, index) {
  const name = log.fields.find((field) => field.key === "event");
  const rest = log.fields.filter((field) => field !== name);
  const title = name ? String(name.value) : "event";
  const after = log.timestamp - node.span.startTime;
  return el("details", { open: index < 5 || title === "exception" },
    el("summary", {}, el("b", { class: title === "exception" ? "bad" : "", text: title }), el("span", { class: "dim", text: ` +${format.duration(Math.max(0, after))}` })),
    table("", rest));
}

function links(node, onGo) {
  const { references } = node.span;
  const others = references.filter((reference) => reference.refType === "FOLLOWS_FROM" || reference.spanID !== node.parent?.span.spanID);
  if (!others.length) return null;
  const item = ({ refType, traceID, spanID }) => {
    const what = refType === "CHILD_OF" ? "parent (not in this trace)" : "linked to";
    const here = traceID === node.span.traceID;
    const link = here
      ? el("button", { type: "button", class: "link mono", text: spanID, onclick: () => onGo(spanID) })
      : el("a", { class: "mono", href: `/trace/${traceID}#${spanID}`, text: `${traceID.slice(0, 8)}… / ${spanID}` });
    return el("li", {}, el("span", { class: "dim", text: `${what} ` }), link);
  };
  return el("section", {}, el("h3", {}, "Links", el("small", { text: format.count(others.length) })), el("ul", {}, others.slice(0, MAX_ROWS).map(item)), more(others));
}
