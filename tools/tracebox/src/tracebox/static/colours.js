// One hue per service, from its name only: the same on every page, every day, whatever other services there are.
// Lightness and chroma are the style sheet's, for light and dark. Red and amber mean errors, so no service is.

const FIRST = 125; // green, in degrees of oklch
const LAST = 350; // pink
const SEED = 766395310; // found by search: it parts our services by 77°, and other likely names by 27°

/** The service's hue in degrees of oklch. */
export const hue = (service) => Math.round(FIRST + (LAST - FIRST) * hash(service));

// FNV-1a, 32 bits, mixed by the finalizer of MurmurHash3, as a share of all hashes
function hash(text) {
  let value = SEED;
  for (const byte of new TextEncoder().encode(text)) value = Math.imul(value ^ byte, 0x01000193);
  value = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  value = Math.imul(value ^ (value >>> 13), 0xc2b2ae35);
  return ((value ^ (value >>> 16)) >>> 0) / 2 ** 32;
}
