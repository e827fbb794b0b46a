// Builds a tree of spans from a trace in Jaeger's JSON. Without recursion, because a trace may be thousands of spans deep.

import { outcome } from "./outcome.js";

/**
 * The spans in the order of the waterfall, parents before children and children by start time.
 * A node: {span, service, index, depth, parent, children, outcome, failed, failedBelow, folded, start, end}; times in µs
 * from the start of the trace, whose length is at least 1 µs. `orphans` counts the spans whose parent is missing; they are at the top level.
 */
export function buildTree(trace) {
  const nodes = trace.spans.map((span) => newNode(span, trace.processes));
  const byId = new Map(nodes.map((node) => [node.span.spanID, node]));
  const origin = nodes.reduce((first, node) => Math.min(first, node.span.startTime), Infinity);
  let orphans = 0;
  const roots = [];
  for (const node of nodes) {
    node.start = node.span.startTime - origin;
    node.end = node.start + node.span.duration;
    const wanted = parentId(node.span, trace.traceID);
    const parent = byId.get(wanted);
    if (parent && parent !== node) adopt(parent, node);
    else roots.push(node);
    if (wanted && !parent) orphans++;
  }
  const ordered = order([...roots, ...breakCycles(nodes, roots)]);
  ordered.forEach((node, index) => (node.index = index));
  for (const node of [...ordered].reverse()) if (node.parent && (node.failed || node.failedBelow)) node.parent.failedBelow = true;
  const length = nodes.reduce((last, node) => Math.max(last, node.end), 1);
  return { nodes: ordered, origin, length, orphans };
}

function newNode(span, processes) {
  const tags = new Map(span.tags.map((tag) => [tag.key, tag.value]));
  const result = outcome(tags);
  return {
    span, tags, service: processes[span.processID]?.serviceName ?? "?", process: processes[span.processID],
    outcome: result, failed: result.kind === "error", failedBelow: false, folded: false,
    parent: null, children: [], index: 0, depth: 0, start: 0, end: 0,
  };
}

function parentId(span, traceId) {
  const own = span.references.filter((reference) => reference.traceID === traceId);
  return (own.find((reference) => reference.refType === "CHILD_OF") ?? own[0])?.spanID;
}

function adopt(parent, node) {
  node.parent = parent;
  parent.children.push(node);
}

function order(roots) {
  const later = (a, b) => b.start - a.start;
  const pending = roots.sort(later);
  const ordered = [];
  while (pending.length) {
    const node = pending.pop();
    node.depth = node.parent ? node.parent.depth + 1 : 0;
    ordered.push(node);
    for (const child of node.children.sort(later)) pending.push(child);
  }
  return ordered;
}

/** Spans that are each other's parents have no root: the first of each circle becomes one. Returns these. */
function breakCycles(nodes, roots) {
  const done = new Set(roots);
  const first = [];
  for (const start of nodes) {
    const path = new Set();
    let node = start;
    for (; node && !done.has(node) && !path.has(node); node = node.parent) path.add(node);
    if (node && path.has(node)) first.push(cut(node));
    for (const seen of path) done.add(seen);
  }
  return first;
}

/** Make the first span of the circle of this one a root. */
function cut(node) {
  let first = node;
  for (let other = node.parent; other !== node; other = other.parent) if (other.start < first.start) first = other;
  first.parent.children = first.parent.children.filter((child) => child !== first);
  first.parent = null;
  return first;
}

/** The nodes that are not hidden by a folded ancestor. */
export function visible(nodes) {
  const shown = [];
  let hiddenBelow = Infinity;
  for (const node of nodes) {
    if (node.depth > hiddenBelow) continue;
    hiddenBelow = node.folded ? node.depth : Infinity;
    shown.push(node);
  }
  return shown;
}
