// One hue for each service. It depends only on the name, so it never changes, even if there are other services.
// The style sheet sets lightness and chroma, for light and dark. No service is red or amber: they mean errors.

const FIRST = 125; // green, in degrees of oklch
const LAST = 350; // pink
const SEED = 766395310; // found by search: the hues of our services differ by 77° or more, those of other likely names by 27°

/** The service's hue in degrees of oklch. */
export const hue = (service) => Math.round(FIRST + (LAST - FIRST) * hash(service));

// A number from 0 to 1: FNV-1a with 32 bits, then the finalizer of MurmurHash3.
function hash(text) {
  let value = SEED;
  for (const byte of new TextEncoder().encode(text)) value = Math.imul(value ^ byte, 0x01000193);
  value = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  value = Math.imul(value ^ (value >>> 13), 0xc2b2ae35);
  return ((value ^ (value >>> 16)) >>> 0) / 2 ** 32;
}
