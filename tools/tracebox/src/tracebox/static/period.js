// The time range: a lookback such as 15m, which moves with the clock, or two times. The address has µs, as in Jaeger.

const SECOND = 1_000_000;
const UNITS = { s: SECOND, m: 60 * SECOND, h: 3600 * SECOND, d: 86_400 * SECOND };

/** The parameters of the address: `lookback`, or lookback=custom with `start` and `end`. Throws an Error for the user. */
export function readPeriod({ lookback, from, to }) {
  if (!lookback.value) return {};
  if (lookback.value !== "custom") return lookback.value.match(/^[0-9]{1,6}[smhd]$/) ? { lookback: lookback.value } : refuse();
  const [start, end] = [microseconds(from.value, "From"), microseconds(to.value, "To")];
  if (!start && !end) throw new Error("Fill in “From” or “To”, or choose another time range.");
  if (start && end && start > end) throw new Error("“From” must not be later than “To”.");
  return { lookback: "custom", ...(start && { start }), ...(end && { end: end + SECOND - 1 }) }; // includes the whole last second
}

function refuse() {
  throw new Error("Write the time range as lookback=15m in the address: a number and s, m, h or d.");
}

function microseconds(local, name) {
  if (!local) return 0;
  const milliseconds = new Date(local).getTime();
  if (!(milliseconds > 0)) throw new Error(`“${name}” is not a time.`);
  return milliseconds * 1000;
}

/** Fill the form with the time range of the address. */
export function showPeriod({ from, to }, wanted) {
  from.value = localTime(wanted.get("start"));
  to.value = localTime(wanted.get("end"));
}

/** Suggest the last hour if both times are empty. */
export function suggestPeriod({ from, to }) {
  if (from.value || to.value) return;
  const now = Date.now() * 1000;
  [from.value, to.value] = [localTime(now - UNITS.h), localTime(now)];
}

/** A time for a datetime-local field; empty if it is not a time. */
function localTime(microseconds) {
  const date = new Date(Math.floor(Number(microseconds) / SECOND) * 1000);
  if (!microseconds || Number.isNaN(date.getTime())) return "";
  const local = new Date(date.getTime() - date.getTimezoneOffset() * 60_000);
  return Number.isNaN(local.getTime()) ? "" : local.toISOString().slice(0, 19);
}

/** Replace `lookback` by the `start` and `end` that the server accepts. */
export function resolvePeriod(query) {
  const lookback = query.get("lookback");
  query.delete("lookback");
  if (lookback && lookback !== "custom") query.set("start", Date.now() * 1000 - parseInt(lookback) * UNITS[lookback.at(-1)]);
}
