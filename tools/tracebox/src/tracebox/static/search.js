// The search: filters, which the address keeps, the list of traces, and how full the store is.

import { hue } from "./colours.js";
import { byId, el, getJson, shortened } from "./dom.js";
import * as format from "./format.js";
import { describe, rowShade, shade } from "./outcome.js";
import { readPeriod, resolvePeriod, showPeriod, suggestPeriod } from "./period.js";
import { plot } from "./plot.js";
import { formatTags, parseTags } from "./tags.js";

const REFRESH_MS = 2000;
const DEFAULT_LIMIT = "50";
const MAX_CHIPS = 30; // services of a trace
const MAX_NAME = 300; // characters
const TYPED = new Set(["minDuration", "tags", "from", "to"]); // fields that start a search by Enter or the button
const form = byId("filters");
let timer = 0;
let searches = 0; // the number of searches: a late response to an earlier one is ignored
let latest = ""; // the traces shown, so that the list is redrawn only if they change
let known = null; // the ids shown before, so that new traces are marked

/** Show the search of the address, and keep the address up to date. */
export async function showSearch() {
  byId("search").hidden = false;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    find();
  });
  form.addEventListener("change", (event) => {
    if (event.target.name === "service") form.elements.operation.value = "";
    if (event.target.name === "lookback" && showBetween()) suggestPeriod(form.elements);
    if (!TYPED.has(event.target.name)) find();
  });
  addEventListener("popstate", load);
  document.addEventListener("visibilitychange", () => document.hidden || refresh());
  await load();
}

/** Fill the form from the address, then search. */
async function load() {
  const wanted = new URLSearchParams(location.search);
  form.elements.minDuration.value = wanted.get("minDuration") ?? "";
  form.elements.errors.checked = wanted.get("errors") === "true";
  form.elements.auto.checked = wanted.get("auto") === "true";
  form.elements.tags.value = tagsText(wanted.get("tags") ?? "");
  select(form.elements.lookback, wanted.get("lookback") || (wanted.has("start") || wanted.has("end") ? "custom" : ""));
  showPeriod(form.elements, wanted);
  showBetween();
  select(form.elements.limit, wanted.get("limit") || DEFAULT_LIMIT);
  select(form.elements.service, wanted.get("service") ?? "");
  select(form.elements.operation, wanted.get("operation") ?? "");
  await refresh();
}

/** The text of the field for the tags of an address; invalid tags stay unchanged. */
function tagsText(text) {
  try {
    return formatTags(parseTags(text));
  } catch {
    return text;
  }
}

/** Show or hide the fields for two times; returns whether they are shown. */
function showBetween() {
  const custom = form.elements.lookback.value === "custom";
  byId("between").hidden = !custom;
  return custom;
}

/** Search with the filters of the form, and store them in the address. */
async function find() {
  const field = form.elements.minDuration;
  if (/^\s*[0-9.]+\s*$/.test(field.value)) field.value = `${field.value.trim()}ms`;
  const query = filtersOrProblem();
  if (!query) return;
  if (form.elements.auto.checked) query.set("auto", "true");
  const search = query.toString();
  if (`?${search}` !== location.search) history.pushState(null, "", `/search${search ? `?${search}` : ""}`);
  await refresh();
}

/** The form as parameters of the address. Throws an Error for the user. */
function filters() {
  const query = new URLSearchParams();
  for (const name of ["service", "operation", "minDuration", "limit", "errors"]) {
    const text = new FormData(form).get(name)?.trim();
    if (text && !(name === "limit" && text === DEFAULT_LIMIT)) query.set(name, text);
  }
  const tags = parseTags(form.elements.tags.value);
  if (Object.keys(tags).length) query.set("tags", JSON.stringify(tags));
  for (const [name, value] of Object.entries(readPeriod(form.elements))) query.set(name, value);
  return query;
}

function filtersOrProblem() {
  try {
    return filters();
  } catch (error) {
    searches++;
    showProblem(error.message);
    return null;
  }
}

async function refresh() {
  clearTimeout(timer);
  const query = filtersOrProblem();
  if (!query) return refreshNames().catch(() => null);
  resolvePeriod(query);
  if (!query.has("limit")) query.set("limit", DEFAULT_LIMIT);
  sessionStorage.setItem("search", location.search);
  let held = null;
  const search = ++searches;
  try {
    const [answer] = await Promise.all([getJson(`/summaries?${query}`), refreshNames()]);
    if (search !== searches) return;
    held = answer.held;
    showProblem("");
    show(answer);
  } catch (error) {
    if (search !== searches) return;
    showProblem(explain(error));
  }
  const again = form.elements.auto.checked || held?.traces === 0;
  if (again && !document.hidden) timer = setTimeout(refresh, REFRESH_MS);
}

function explain(error) {
  if (error.status === undefined) return "tracebox does not respond. Is it still running?";
  if (/minDuration/.test(error.message)) return "Write the duration like 250us, 10ms or 1.5s.";
  return error.message;
}

function showProblem(text) {
  byId("problem").textContent = text;
  byId("problem").hidden = !text;
}

async function refreshNames() {
  const { service, operation } = form.elements;
  const services = (await getJson("/api/services")).data ?? [];
  fill(service, services, "All services");
  if (!service.value) return fill(operation, [], "All operations");
  const path = `/api/services/${encodeURIComponent(service.value)}/operations`;
  fill(operation, (await getJson(path)).data ?? [], "All operations");
}

/** Fill a select with names. Keeps the selected one, and changes nothing if the names are the same. */
function fill(field, names, all) {
  const chosen = field.value;
  const offered = [...new Set(chosen ? [...names, chosen] : names)].sort();
  field.disabled = field.name === "operation" && !form.elements.service.value;
  if (offered.join("\n") === [...field.options].slice(1).map((o) => o.value).join("\n")) return;
  field.replaceChildren(el("option", { value: "", text: all }));
  for (const name of offered) field.append(el("option", { value: name, text: shortened(name, MAX_NAME) }));
  field.value = chosen;
}

function select(field, value) {
  if (value && ![...field.options].some((option) => option.value === value)) field.append(el("option", { value, text: value }));
  field.value = value;
}

function show({ traces, held }) {
  showHeld(held);
  byId("empty").hidden = traces.length > 0;
  byId("found").hidden = traces.length === 0;
  if (!traces.length) return showEmpty(held);
  traces.sort((a, b) => b.start - a.start);
  const state = JSON.stringify(traces);
  if (state === latest) return showAges();
  latest = state;
  plot(byId("plot"), traces);
  showCount(traces, held);
  showList(traces);
}

function showCount(traces, held) {
  const failed = traces.filter((trace) => trace.errors).length;
  const shown = traces.length === held.traces ? format.plural(traces.length, "trace") : `${format.count(traces.length)} of ${format.plural(held.traces, "trace")}`;
  byId("count").textContent = `${shown}, newest first${failed ? ` · ${format.count(failed)} with errors` : ""}`;
}

function showList(traces) {
  const focused = document.activeElement?.dataset?.trace;
  const longest = traces.reduce((most, trace) => Math.max(most, trace.duration), 1);
  byId("list").replaceChildren();
  for (const trace of traces) byId("list").append(row(trace, longest));
  if (focused) byId("list").querySelector(`[data-trace="${CSS.escape(focused)}"]`)?.focus();
  known = new Set(traces.map((trace) => trace.traceID));
}

function row(trace, longest) {
  const fresh = known && !known.has(trace.traceID);
  const link = el("a", { class: `trace-row ${rowShade(trace)}${fresh ? " fresh" : ""}`, href: `/trace/${trace.traceID}`, "data-trace": trace.traceID, style: { "--h": hue(trace.service) } },
    el("span", { class: "what" },
      el("span", { class: "title" }, el("b", { text: shortened(trace.service, MAX_NAME) }), el("span", { class: "operation", text: shortened(trace.operation, MAX_NAME) })),
      el("span", { class: "chips" }, Object.entries(trace.services).slice(0, MAX_CHIPS).map(([name, spans]) => chip(name, spans)))),
    el("span", { class: "took" },
      el("span", { class: "took-text", text: format.duration(trace.duration) }),
      el("span", { class: "track" }, el("span", { class: "fill", style: { width: `${Math.max(0.5, (100 * trace.duration) / longest)}%` } }))),
    el("span", { class: "numbers" },
      el("span", { text: format.plural(trace.spans, "span") }),
      trace.errors ? el("span", { class: "badge bad", text: format.plural(trace.errors, "error") }) : null,
      clientErrors(trace)),
    el("span", { class: "when" },
      el("time", { datetime: new Date(trace.start / 1000).toISOString(), text: format.time(trace.start) }),
      el("span", { class: "dim", "data-start": trace.start, text: format.ago(trace.start) })));
  return el("li", {}, link);
}

/** The outcome of the root if it is a client error or cancelled, otherwise the number of such spans. */
function clientErrors(trace) {
  const ended = shade(trace.outcome) === "warn" ? describe({ kind: trace.outcome, status: trace.status }) : null;
  if (!ended && !trace.clientErrors) return null;
  return el("span", { class: "badge warn", text: ended ?? format.plural(trace.clientErrors, "client error") });
}

/** A service's name in its colour, with the number of its spans. */
function chip(name, spans) {
  return el("span", { class: "chip", style: { "--h": hue(name) } }, shortened(name, MAX_NAME), el("small", { text: format.count(spans) }));
}

function showAges() {
  for (const node of byId("list").querySelectorAll("[data-start]")) node.textContent = format.ago(Number(node.dataset.start));
}

function showHeld(held) {
  const share = Math.max(held.spans / held.maxSpans, held.bytes / held.maxBytes);
  byId("held").hidden = false;
  byId("held-text").textContent = `${format.plural(held.traces, "trace")} · ${format.plural(held.spans, "span")}`;
  byId("held-meter").value = share;
  byId("held").title = `${format.size(held.bytes)} of ${format.size(held.maxBytes)}, ${format.count(held.spans)} of ${format.count(held.maxSpans)} spans. When the store is full, the oldest traces are dropped.`;
}

function showEmpty(held) {
  latest = "";
  byId("empty").replaceChildren(...(held.traces ? nothingMatches() : nothingYet()));
}

function nothingYet() {
  return [
    el("h2", { text: "No traces yet" }),
    el("p", { text: "tracebox is running. Send a request to the mesh, and its trace appears here:" }),
    el("pre", { text: "curl http://127.0.0.1:8080/v1/products" }),
    el("p", { class: "dim", text: "The mesh printed the address of its API when it started. Other programs can also export their spans here, by OTLP over gRPC." }),
  ];
}

function nothingMatches() {
  const clear = () => {
    history.pushState(null, "", "/search");
    load();
  };
  return [
    el("h2", { text: "No trace matches" }),
    el("p", { text: "One span has to satisfy service, operation, tags, time and duration at once." }),
    el("button", { type: "button", class: "primary", text: "Show all traces", onclick: clear }),
  ];
}
