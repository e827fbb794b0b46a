// The whole trace in small; dragging over a part zooms the waterfall to that part.

import { hue } from "./colours.js";
import { byId } from "./dom.js";
import { shade } from "./outcome.js";

const HEIGHT = 56;
const OUTCOMES = { bad: "#e5484d", warn: "#d99a1c" };

/** Draw the tree. Dragging calls `onZoom(from, to)`, in µs from the start of the trace. */
export function overview(tree, onZoom) {
  const canvas = byId("overview");
  const redraw = () => draw(canvas, tree);
  addEventListener("resize", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  dragging(canvas, (from, to) => onZoom(from * tree.length, to * tree.length));
  redraw();
}

function draw(canvas, tree) {
  const ratio = devicePixelRatio || 1;
  const width = canvas.clientWidth;
  canvas.width = width * ratio;
  canvas.height = HEIGHT * ratio;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const step = (HEIGHT - 6) / tree.nodes.length;
  const thick = Math.max(1, Math.min(4, step - 1));
  tree.nodes.forEach((node, index) => {
    pen.fillStyle = OUTCOMES[shade(node.outcome.kind)] ?? `oklch(${dark ? 0.7 : 0.65} 0.13 ${hue(node.service)})`;
    const left = (node.start / (tree.length || 1)) * width;
    pen.fillRect(left, 3 + index * step, Math.max(1.5, (node.span.duration / (tree.length || 1)) * width), thick);
  });
}

/** Mark a part, given as fractions of the trace; the whole trace gets no mark. */
export function brush(from, to) {
  const node = byId("brush");
  node.hidden = from <= 0 && to >= 1;
  node.style.left = `${100 * from}%`;
  node.style.width = `${100 * (to - from)}%`;
}

function dragging(canvas, onPart) {
  const share = (event) => {
    const box = canvas.getBoundingClientRect();
    return Math.max(0, Math.min(1, (event.clientX - box.left) / box.width));
  };
  let anchor = null;
  canvas.addEventListener("pointerdown", (event) => {
    anchor = share(event);
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (anchor !== null) brush(Math.min(anchor, share(event)), Math.max(anchor, share(event)));
  });
  canvas.addEventListener("pointerup", (event) => {
    if (anchor === null) return;
    const ends = [anchor, share(event)].sort((a, b) => a - b);
    anchor = null;
    if (ends[1] - ends[0] > 0.005) onPart(...ends);
  });
  canvas.addEventListener("dblclick", () => onPart(0, 1));
}
