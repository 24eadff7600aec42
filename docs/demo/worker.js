// Decodes pictures, runs the network on their tiles and writes PNG files, away from the page's own thread.
//
// In: {file, model: {name, file, sha256}, memoryMegabytes}. Out, each with `type`: `stage`, `engine`, `picture`,
// `speed`, `tile`, then one of `done`, `failed`, `memory`. The page cancels a job by ending the worker.

import { openEngine } from "./engine.js";
import { readMetadata } from "./onnx-file.js";
import { decode, enlargeAlpha, fillHidden } from "./picture.js";
import { PngWriter } from "./png.js";
import { largestTile, MINIMUM_TILE, planTiles } from "./tile-plan.js";

const MODELS = new URL("../../runtime/models/", import.meta.url);
const PREVIEW_PIXELS = 12_000_000; // what the page shows at once; the PNG file is always whole
const WASM_OVERHEAD = 1.25; // memory in WebAssembly over what the file says, which was measured natively
const OUT_OF_MEMORY = /bad_alloc|out of memory|allocation failed|failed to allocate|memory access out of bounds|abort/i;
const LUMA = [0.299, 0.587, 0.114]; // BT.601

let opened = null; // the latest model: {name, metadata, bytes, engine}

self.onmessage = async ({ data }) => {
  try {
    await upscale(data);
  } catch (error) {
    const message = String(error?.message ?? error);
    if (error instanceof RangeError || OUT_OF_MEMORY.test(message)) self.postMessage({ type: "memory" });
    else self.postMessage({ type: "failed", message });
  }
};

async function upscale({ file, model, memoryMegabytes }) {
  self.postMessage({ type: "stage", text: "Reading the picture" });
  const picture = await decode(file);
  const { width, height } = picture;
  if (opened?.name !== model.name) {
    self.postMessage({ type: "stage", text: `Loading ${model.name}` });
    await opened?.engine?.release();
    opened = null;
    const bytes = await fetchModel(model);
    opened = { name: model.name, bytes, metadata: readMetadata(bytes), engine: null };
  }
  const { metadata } = opened;
  const plan = planFor(height, width, metadata, memoryMegabytes);
  const { scale } = metadata;
  const reduction = Math.max(1, Math.ceil(Math.sqrt((width * height * scale * scale) / PREVIEW_PIXELS)));
  const tiles = plan.rows.length * plan.columns.length;
  const { bitmap } = picture;
  self.postMessage({ type: "picture", bitmap, width, height, scale, reduction, tiles }, [bitmap]);
  if (picture.hasAlpha) {
    picture.rgba = new Float32Array(picture.rgba); // the command line does not round what it puts under transparency
    fillHidden(picture.rgba, (index) => picture.rgba[index * 4 + 3], height, width);
  }

  if (opened.engine === null) {
    self.postMessage({ type: "stage", text: "Starting the network" });
    const first = { height: plan.rows[0].cropStop, width: plan.columns[0].cropStop };
    const crop = (rows, columns) => cropOf(picture.rgba, width, { top: 0, bottom: rows, left: 0, right: columns });
    opened.engine = await openEngine(opened.bytes, crop, first);
    opened.bytes = null;
  }
  self.postMessage({ type: "engine", line: opened.engine.line });
  const blob = await runTiles(picture, plan, { scale, reduction }, opened.engine);
  self.postMessage({ type: "done", blob });
}

async function fetchModel(model) {
  const answer = await fetch(new URL(model.file, MODELS));
  if (!answer.ok) throw new Error(`The model ${model.file} is not here (status ${answer.status}).`);
  const bytes = new Uint8Array(await answer.arrayBuffer());
  if (self.crypto?.subtle) {
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    const found = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
    if (found !== model.sha256) throw new Error(`${model.file} is not the published one. Load the page again.`);
  }
  return bytes;
}

function planFor(height, width, metadata, memoryMegabytes) {
  const cropPixels = Math.floor((memoryMegabytes * 1e6) / (metadata.bytesPerPixel * WASM_OVERHEAD));
  const tile = largestTile(height, width, metadata, cropPixels);
  return planTiles(height, width, metadata, tile === null ? null : Math.max(tile, MINIMUM_TILE));
}

async function runTiles({ width, height, rgba, hasAlpha, isGrey }, plan, { scale, reduction }, engine) {
  const colors = isGrey ? 1 : 3;
  const channels = colors + (hasAlpha ? 1 : 0);
  const png = new PngWriter(width * scale, height * scale, channels);
  const pixelsOf = (row, column) => (row.cropStop - row.cropStart) * (column.cropStop - column.cropStart);
  let pixelsLeft = 0;
  for (const row of plan.rows) for (const column of plan.columns) pixelsLeft += pixelsOf(row, column);
  for (const row of plan.rows) {
    const bandRows = (row.stop - row.start) * scale;
    const band = new Uint8ClampedArray(bandRows * width * scale * channels);
    const alpha = hasAlpha ? enlargeAlpha(rgba, height, width, scale, row.start * scale, row.stop * scale) : null;
    for (const column of plan.columns) {
      self.postMessage({ type: "speed", secondsLeft: pixelsLeft * engine.secondsPerPixel });
      const crop = { top: row.cropStart, bottom: row.cropStop, left: column.cropStart, right: column.cropStop };
      const start = performance.now();
      const cropHeight = crop.bottom - crop.top;
      const cropWidth = crop.right - crop.left;
      const sr = await engine.run(cropOf(rgba, width, crop), cropHeight, cropWidth);
      const seconds = (performance.now() - start) / 1000;
      engine.secondsPerPixel = (engine.secondsPerPixel + seconds / pixelsOf(row, column)) / 2; // smooth, but soon true
      pixelsLeft -= pixelsOf(row, column);
      place(sr, { row, column, scale }, { band, bandRows, width: width * scale, channels, colors, alpha });
      showTile(band, { row, column, scale, reduction }, { width: width * scale, channels, colors });
    }
    await png.add(new Uint8Array(band.buffer));
  }
  return png.finish();
}

/** Return the (3, H, W) float32 pixels of a rectangle. */
function cropOf(rgba, width, { top, bottom, left, right }) {
  const plane = (bottom - top) * (right - left);
  const result = new Float32Array(3 * plane);
  let to = 0;
  for (let y = top; y < bottom; y++) {
    for (let x = left, from = (y * width + left) * 4; x < right; x++, from += 4, to++) {
      for (let c = 0; c < 3; c++) result[c * plane + to] = rgba[from + c];
    }
  }
  return result;
}

/** Write the tile's own pixels of a crop's result into the band, rounded and clamped. */
function place(sr, { row, column, scale }, { band, bandRows, width, channels, colors, alpha }) {
  const cropWidth = (column.cropStop - column.cropStart) * scale;
  const plane = (row.cropStop - row.cropStart) * scale * cropWidth;
  if (sr.length !== 3 * plane) throw new Error("The network's result has another size than its metadata says.");
  let sum = 0;
  for (let y = 0; y < bandRows; y++) {
    let from = ((row.start - row.cropStart) * scale + y) * cropWidth + (column.start - column.cropStart) * scale;
    for (let x = column.start * scale; x < column.stop * scale; x++, from++) {
      const red = sr[from];
      const green = sr[from + plane];
      const blue = sr[from + 2 * plane];
      const to = (y * width + x) * channels;
      sum += red + green + blue;
      if (colors === 1) band[to] = red * LUMA[0] + green * LUMA[1] + blue * LUMA[2];
      else {
        band[to] = red;
        band[to + 1] = green;
        band[to + 2] = blue;
      }
      if (alpha) band[to + colors] = alpha[y * width + x];
    }
  }
  if (!Number.isFinite(sum)) throw new Error("The network's result holds values that are not numbers.");
}

/** Send the tile to the page as RGBA, reduced by whole numbers where the result is larger than what it shows. */
function showTile(band, { row, column, scale, reduction }, { width, channels, colors }) {
  const reduced = (lr) => Math.ceil((lr * scale) / reduction);
  const [top, bottom] = [reduced(row.start), reduced(row.stop)];
  const [left, right] = [reduced(column.start), reduced(column.stop)];
  if (bottom <= top || right <= left) return;
  const image = new ImageData(right - left, bottom - top);
  let to = 0;
  for (let y = top; y < bottom; y++) {
    for (let x = left; x < right; x++, to += 4) {
      const from = ((y * reduction - row.start * scale) * width + x * reduction) * channels;
      for (let c = 0; c < 3; c++) image.data[to + c] = band[from + (colors === 1 ? 0 : c)];
      image.data[to + 3] = channels > colors ? band[from + colors] : 255;
    }
  }
  self.postMessage({ type: "tile", image, left, top });
}
