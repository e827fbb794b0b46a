// How a span ended: distinguishes errors of a server from mistakes of its client. Same rules as tracebox/outcome.py.

const HTTP = ["http.response.status_code", "http.status_code"];
const RPC = ["rpc.response.status_code", "rpc.grpc.status_code"];
const CANCELLED = new Set(["499", "CANCELLED", "1"]);
const CLIENT_ERRORS = new Set(
  ("INVALID_ARGUMENT NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED" +
    " OUT_OF_RANGE UNAUTHENTICATED 3 5 6 7 8 9 10 11 16").split(" "));

/** The outcome of a span by its tags (a Map): kind "", "error", "client error" or "cancelled", and status. */
export function outcome(tags) {
  const [http, rpc] = [first(tags, HTTP), first(tags, RPC)];
  return { kind: kind(tags, http, rpc), status: http || rpc };
}

function kind(tags, http, rpc) {
  if (CANCELLED.has(http) || CANCELLED.has(rpc) || String(tags.get("error.type") ?? "").endsWith("CancelledError")) return "cancelled";
  if (/^4\d\d$/.test(http) || CLIENT_ERRORS.has(rpc)) return "client error";
  return tags.get("error") === true ? "error" : "";
}

const first = (tags, names) => String(tags.get(names.find((name) => tags.has(name))) ?? "");

/** "404 client error", "cancelled", "error"; a status that only repeats the kind is omitted. */
export const describe = ({ kind, status }) => (status.toLowerCase() === kind ? kind : [status, kind].filter(Boolean).join(" "));

/** The CSS class of a kind: red for errors, amber for client errors and cancelled calls. */
export const shade = (kind) => (kind === "error" ? "bad" : kind ? "warn" : "");

/** The CSS class of a trace in the list: red if any server failed, amber if the root is a client error or cancelled. */
export const rowShade = (trace) => (trace.errors ? "bad" : shade(trace.outcome));
