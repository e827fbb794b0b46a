// The waterfall: one row for each span. Only the visible rows exist, so a trace may have thousands of spans.

import { hue } from "./colours.js";
import { byId, el, shortened } from "./dom.js";
import * as format from "./format.js";
import { describe, shade } from "./outcome.js";
import { visible } from "./tree.js";

const ROW = 30; // px, as in the style sheet
const AHEAD = 12; // additional rows above and below the visible ones
const STEP = 16; // px of indent per level
const MAX_INDENT = 200;
const TICKS = 5;
const MAX_NAME = 300; // characters
const MAX_EVENTS = 200; // drawn on a bar

export class Waterfall {
  /** Draws the tree into #rows. A click or Enter calls `onSelect(node)`, Escape calls `onEscape()`. */
  constructor(tree, onSelect, onEscape) {
    this.tree = tree;
    this.rows = byId("rows");
    this.onSelect = onSelect;
    this.onEscape = onEscape;
    this.from = 0;
    this.to = tree.length || 1;
    this.current = tree.nodes[0];
    this.hits = null;
    this.indent = Math.min(STEP, MAX_INDENT / tree.nodes.reduce((most, node) => Math.max(most, node.depth), 1));
    this.refold();
    addEventListener("scroll", () => this.draw(), { passive: true });
    addEventListener("resize", () => this.draw());
    this.rows.addEventListener("click", (event) => this.click(event));
    document.addEventListener("keydown", (event) => {
      if (event.target === document.body || event.target === this.rows) this.press(event);
    });
  }

  /** Show the part of the trace between two times, µs from its start. */
  zoom(from, to) {
    [this.from, this.to] = [from, to];
    this.redraw();
  }

  /** Mark these nodes as found (a Set), or none (null). */
  mark(hits) {
    this.hits = hits;
    this.redraw();
  }

  foldAll(folded) {
    for (const node of this.tree.nodes) node.folded = folded && node.children.length > 0;
    while (folded && this.current.parent) this.current = this.current.parent;
    this.refold();
  }

  refold() {
    this.shown = visible(this.tree.nodes);
    this.place = new Map(this.shown.map((node, index) => [node, index]));
    this.rows.style.height = `${this.shown.length * ROW}px`;
    this.redraw();
  }

  redraw() {
    this.drawn = null;
    drawTicks(this.from, this.to);
    this.draw();
  }

  /** Draw the visible rows, unless they are drawn. */
  draw() {
    const top = -this.rows.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(top / ROW) - AHEAD);
    const last = Math.min(this.shown.length, Math.ceil((top + innerHeight) / ROW) + AHEAD);
    if (this.drawn === `${first}-${last}`) return;
    this.drawn = `${first}-${last}`;
    this.rows.replaceChildren(...this.shown.slice(first, last).map((node, i) => this.row(node, first + i)));
    const current = document.getElementById(rowId(this.current));
    if (current) this.rows.setAttribute("aria-activedescendant", current.id);
    else this.rows.removeAttribute("aria-activedescendant");
  }

  row(node, index) {
    const folds = node.children.length > 0;
    const classes = ["span-row", shade(node.outcome.kind), node === this.current && "current", this.hits && (this.hits.has(node) ? "hit" : "miss")];
    return el("div", {
      id: rowId(node), class: classes.filter(Boolean).join(" "), role: "treeitem", "data-index": index,
      style: { top: `${index * ROW}px`, "--h": hue(node.service), "--indent": `${node.depth * this.indent}px` },
      "aria-level": node.depth + 1, "aria-selected": String(node === this.current), "aria-expanded": folds ? String(!node.folded) : null,
      "aria-label": `${shortened(node.service, MAX_NAME)}: ${shortened(node.span.operationName, MAX_NAME)}, ${format.duration(node.span.duration)}${node.outcome.kind ? `, ${describe(node.outcome)}` : ""}`,
    },
    el("div", { class: "name" },
      folds ? el("span", { class: `fold${node.folded ? " folded" : ""}`, "data-fold": true }) : el("span", { class: "leaf" }),
      node.outcome.kind ? el("span", { class: `mark ${shade(node.outcome.kind)}`, text: node.failed ? "!" : "–", title: describe(node.outcome) }) : null,
      node.folded && node.failedBelow && !node.failed ? el("span", { class: "mark below", text: "!", title: "A span below failed" }) : null,
      el("span", { class: "service", text: shortened(node.service, MAX_NAME) }),
      el("span", { class: "operation", text: format.shortName(shortened(node.span.operationName, MAX_NAME)), title: shortened(node.span.operationName, 2000) }),
      node.folded ? el("span", { class: "badge", text: `+${format.count(below(node))}` }) : null),
    el("div", { class: "lane" }, ...this.bar(node)));
  }

  bar(node) {
    const span = this.to - this.from;
    const left = (100 * (node.start - this.from)) / span;
    const width = (100 * node.span.duration) / span;
    if (left > 100 || left + width < 0) return [];
    const start = Math.max(0, left);
    const end = Math.min(100, left + width);
    const events = node.span.logs.map((log) => (100 * (log.timestamp - this.tree.origin - this.from)) / span);
    return [
      el("span", { class: "bar", style: { left: `${start}%`, width: `${end - start}%` } }),
      ...events.filter((at) => at >= 0 && at <= 100).slice(0, MAX_EVENTS).map((at) => el("span", { class: "event", style: { left: `${at}%` } })),
      barLabel(start, end, format.duration(node.span.duration), node.outcome),
    ];
  }

  click(event) {
    const row = event.target.closest(".span-row");
    if (!row) return;
    const node = this.shown[Number(row.dataset.index)];
    this.current = node;
    if ("fold" in event.target.dataset) this.fold(node, !node.folded);
    else {
      this.onSelect(node);
      this.redraw();
    }
  }

  press(event) {
    const move = {
      ArrowDown: () => this.moveTo(this.at() + 1), ArrowUp: () => this.moveTo(this.at() - 1),
      PageDown: () => this.moveTo(this.at() + 15), PageUp: () => this.moveTo(this.at() - 15),
      Home: () => this.moveTo(0), End: () => this.moveTo(this.shown.length - 1),
      ArrowRight: () => this.right(), ArrowLeft: () => this.left(),
      Enter: () => this.onSelect(this.current), " ": () => this.onSelect(this.current), Escape: () => this.onEscape(),
    }[event.key];
    if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    move();
  }

  at() {
    return this.place.get(this.current);
  }

  right() {
    if (this.current.folded) this.fold(this.current, false);
    else if (this.current.children.length) this.moveTo(this.at() + 1);
  }

  left() {
    if (this.current.children.length && !this.current.folded) this.fold(this.current, true);
    else if (this.current.parent) this.moveTo(this.place.get(this.current.parent));
  }

  fold(node, folded) {
    node.folded = folded;
    this.refold();
  }

  /** Select the row with this index, and scroll to it. */
  moveTo(index) {
    this.current = this.shown[Math.max(0, Math.min(this.shown.length - 1, index))];
    const top = this.rows.getBoundingClientRect().top + this.at() * ROW;
    const above = document.querySelector(".axis").getBoundingClientRect().bottom;
    if (top < above) scrollBy(0, top - above - ROW);
    else if (top + 2 * ROW > innerHeight) scrollBy(0, top + 2 * ROW - innerHeight);
    this.redraw();
    this.onMove?.(this.current);
  }

  /** Select this node, and unfold its ancestors. */
  reveal(node) {
    for (let above = node.parent; above; above = above.parent) above.folded = false;
    this.refold();
    this.moveTo(this.place.get(node));
  }
}

const rowId = (node) => `span-${node.index}`; // a trace may have several spans with the same id

function below(node) {
  const pending = [...node.children];
  let spans = 0;
  while (pending.length) {
    spans++;
    pending.push(...pending.pop().children);
  }
  return spans;
}

function barLabel(start, end, text, { kind, status }) {
  const code = kind ? el("span", { class: `code ${shade(kind)}`, text: status || kind }) : null;
  const room = code ? 28 : 14; // per cent of the lane
  if (end < 100 - room) return el("span", { class: "bar-label", style: { left: `${end}%` } }, text, code);
  if (start > room) return el("span", { class: "bar-label before", style: { right: `${100 - start}%` } }, text, code);
  return el("span", { class: "bar-label inside", style: { right: `${100 - end}%` } }, text, code);
}

function drawTicks(from, to) {
  const ticks = Array.from({ length: TICKS }, (_, i) => from + ((to - from) * i) / (TICKS - 1));
  byId("ticks").replaceChildren(...ticks.map((at, i) => el("span", { text: format.duration(at), style: { left: `${(100 * i) / (TICKS - 1)}%` } })));
}
