// Exact tiles, cut as `runtime/tiles/plan.py` cuts them, which says why the result is that of the whole picture.
//
// A segment is one tile's extent in one direction, in LR pixels, half-open: [start, stop) is kept, the network sees
// [cropStart, cropStop).

/** Smallest tile, in LR pixels, that a small memory budget leads to. */
export const MINIMUM_TILE = 32;

/**
 * Cut a picture.
 *
 * @param {number} height - of the LR picture; so is `width`.
 * @param {number | null} tile - largest side of a tile in LR pixels, halo not counted; null: one tile.
 */
export function planTiles(height, width, metadata, tile) {
  const cut = (length) =>
    tile === null || Math.floor(length / metadata.tileMultiple) <= metadata.window
      ? [{ start: 0, stop: length, cropStart: 0, cropStop: length }]
      : split(length, tile, metadata);
  const rows = cut(height);
  const columns = cut(width);
  const longest = (segments) => Math.max(...segments.map((segment) => segment.cropStop - segment.cropStart));
  return { height, width, rows, columns, cropPixels: longest(rows) * longest(columns) };
}

/**
 * Return the largest tile whose crops have at most `cropPixels` LR pixels; null if the whole picture has no more.
 *
 * Where even the smallest tile needs more, the smallest is given.
 */
export function largestTile(height, width, metadata, cropPixels) {
  if (height * width <= cropPixels) return null;
  const multiple = metadata.tileMultiple;
  let low = 1;
  let high = Math.ceil(Math.max(height, width) / multiple);
  while (low < high) {
    const middle = Math.floor((low + high + 1) / 2);
    if (planTiles(height, width, metadata, middle * multiple).cropPixels <= cropPixels) low = middle;
    else high = middle - 1;
  }
  return low * multiple;
}

function split(length, wanted, { tileMultiple: multiple, window, halo }) {
  const down = (value) => Math.floor(value / multiple) * multiple;
  const up = (value) => Math.ceil(value / multiple) * multiple;
  const tile = Math.max(multiple, down(wanted));
  const size = up(length / Math.ceil(length / tile));
  const least = window ? (window + 1) * multiple : 0;
  const segments = [];
  for (let start = 0; start < length; start += size) {
    const stop = Math.min(start + size, length);
    let cropStart = down(Math.max(0, start - halo));
    let cropStop = Math.min(length, up(stop + halo));
    cropStop = Math.min(length, Math.max(cropStop, cropStart + least));
    cropStart = Math.min(cropStart, down(Math.max(0, cropStop - least)));
    segments.push({ start, stop, cropStart, cropStop });
  }
  return segments;
}
