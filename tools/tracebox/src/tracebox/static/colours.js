// One hue per service: chosen by a hash of its name, so that it is the same on every page and every day.
// None is red, for that means an error. Lightness and chroma are the style sheet's, for light and dark.

const HUES = [310, 215, 125, 345, 58, 185, 290, 268, 160, 240, 95];
const chosen = new Map();

/** Give the services their hues; where two names hash to the same one, the later in the alphabet moves on. */
export function assignColours(services) {
  for (const service of [...services].sort()) {
    if (chosen.has(service)) continue;
    let slot = hash(service) % HUES.length;
    for (let tries = 1; tries < HUES.length && taken(slot); tries++) slot = (slot + 1) % HUES.length;
    chosen.set(service, slot);
  }
}

const taken = (slot) => [...chosen.values()].includes(slot);

/** The service's hue in degrees of oklch. */
export function hue(service) {
  if (!chosen.has(service)) assignColours([service]);
  return HUES[chosen.get(service)];
}

// FNV-1a, 32 bits
function hash(text) {
  let value = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) value = Math.imul(value ^ byte, 0x01000193) >>> 0;
  return value;
}
