// Tags as text, `http.response.status_code=404 order.id=…`, and as Jaeger's parameter `tags`: a JSON object of strings.

const TERM = /\s*([^\s="]+)=("(?:[^"\\]|\\.)*"|(?!")\S*)(?=\s|$)/y;
const HINT = "Write tags as key=value with a space between them, and a value with spaces in quotes: db.query.text=\"SELECT 1\".";

/** Parse tags, as JSON or as terms. Throws an Error for the user. */
export function parseTags(text) {
  const tags = text.trim().startsWith("{") ? parseJson(text) : Object.fromEntries(parseTerms(text.trim()));
  if (Object.values(tags).some((value) => typeof value !== "string")) throw new Error("The values of tags are strings: put numbers in quotes, or write key=value.");
  return tags;
}

function parseJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(HINT);
  }
}

function parseTerms(text) {
  const terms = new Map();
  TERM.lastIndex = 0;
  while (TERM.lastIndex < text.length) {
    const term = TERM.exec(text);
    if (!term) throw new Error(HINT);
    const [, key, value] = term;
    if (terms.has(key)) throw new Error(`The tag ${key} is given twice, but a span has only one value for it.`);
    terms.set(key, value.startsWith('"') ? parseJson(value) : value);
  }
  return terms;
}

/** The tags as terms, or as JSON if a key cannot be written as a term. */
export function formatTags(tags) {
  if (Object.keys(tags).some((key) => !key || /[\s="]|^\{/.test(key))) return JSON.stringify(tags);
  return Object.entries(tags).map(([key, value]) => `${key}=${/\s|^"/.test(value) ? JSON.stringify(value) : value}`).join(" ");
}
