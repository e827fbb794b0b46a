// Chooses by the address: /trace/{id} shows a trace, every other path the search.

import { byId } from "./dom.js";
import { showSearch } from "./search.js";
import { showTrace } from "./trace.js";

byId("lookup").addEventListener("submit", (event) => {
  event.preventDefault();
  const id = new FormData(event.target).get("id").trim();
  if (id) location.assign(`/trace/${encodeURIComponent(id)}`);
});

const trace = location.pathname.match(/^\/trace\/(.+)$/);
if (trace) showTrace(decoded(trace[1]));
else showSearch();

/** The text of a part of an address; unchanged if it is not UTF-8. */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
