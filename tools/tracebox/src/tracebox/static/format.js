// Formats times and counts. Durations are microseconds, points in time are Unix microseconds.

const number = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });

/** 1234 as "1,234". */
export const count = (n) => number.format(n);

/** "1 span", "3 spans". */
export const plural = (n, noun) => `${count(n)} ${noun}${n === 1 ? "" : "s"}`;

/** Three significant digits with a unit: "850 µs", "12.3 ms", "1.24 s", "2 min 5 s". */
export function duration(microseconds) {
  if (microseconds < 1000) return `${significant(microseconds)} µs`;
  if (microseconds < 999_500) return `${significant(microseconds / 1000)} ms`;
  if (microseconds < 60_000_000) return `${significant(microseconds / 1e6)} s`;
  const seconds = Math.round(microseconds / 1e6);
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${seconds % 60} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function significant(n) {
  if (n >= 100 || Number.isInteger(n)) return String(Math.round(n));
  return String(Number(n.toPrecision(3)));
}

/** The time of day, preceded by the date unless it is today. */
export function time(microseconds) {
  const date = new Date(microseconds / 1000);
  const today = new Date().toDateString() === date.toDateString();
  return today ? clock.format(date) : `${day.format(date)}, ${clock.format(date)}`;
}

/** Date and time with milliseconds. */
export function timestamp(microseconds) {
  const date = new Date(microseconds / 1000);
  const milliseconds = String(Math.floor(microseconds / 1000) % 1000).padStart(3, "0");
  return `${full.format(date)}, ${clock.format(date)}.${milliseconds}`;
}

/** "just now", "12 s ago", "5 min ago". */
export function ago(microseconds) {
  const seconds = Math.round((Date.now() - microseconds / 1000) / 1000);
  if (seconds < 0) return "in the future";
  if (seconds < 2) return "just now";
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return plural(Math.floor(seconds / 86400), "day") + " ago";
}

/** A gRPC method in short: "aiomesh.pricing.v1.PricingService/GetPrice" as "Pricing/GetPrice". */
export const shortName = (operation) => operation.replace(/^[a-z0-9_]+(?:\.[a-z0-9_]+)*\.([A-Z]\w*?)(?:Service)?\/(\w+)$/, "$1/$2");

/** 4300000 as "4.1 MiB". */
export function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log2(bytes || 1) / 10));
  return `${significant(bytes / 1024 ** power)} ${units[power]}`;
}
