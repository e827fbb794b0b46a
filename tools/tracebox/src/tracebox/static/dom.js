// Builds elements. Text from the network is always inserted as text: nothing here parses HTML.

/** The element of the page with this id. */
export const byId = (id) => document.getElementById(id);

/** An element with properties (class, text, dataset, on…, attributes) and children, also in arrays; null is skipped. */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") node.className = value;
    else if (name === "text") node.textContent = value;
    else if (name === "style") for (const [key, v] of Object.entries(value)) node.style.setProperty(key, v);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat()) if (child !== null && child !== undefined) node.append(child);
  return node;
}

/** An SVG element with attributes and children. */
export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  for (const child of children.flat()) node.append(child);
  return node;
}

/** The text with optional line breaks after dots, slashes, underscores and similar characters; a long one is cut. */
export function breakable(text) {
  const parts = shortened(String(text), 2000).split(/(?<=[._/:,?&=-])/);
  return parts.flatMap((part, index) => (index ? [document.createElement("wbr"), part] : [part]));
}

/** The beginning of a text with at most this number of characters. */
export const shortened = (text, length) => (text.length > length ? `${text.slice(0, length)}…` : text);

/** GET JSON; rejects with an Error that has the server's message and `status`. */
export async function getJson(path) {
  const response = await fetch(path, { headers: { Accept: "application/json" } });
  const body = await response.json().catch(() => null);
  if (response.ok && body) return body;
  const message = body?.detail ?? body?.errors?.[0]?.msg ?? `${response.status} ${response.statusText}`;
  throw Object.assign(new Error(message), { status: response.status });
}
