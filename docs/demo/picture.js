// A picture's pixels, and how they pass through a network that knows opaque RGB only; `runtime/pictures/picture.py`
// does the same on the command line.

/** Most pixels of a picture that is taken: what a canvas holds on every browser. */
export const MAX_PIXELS = 16_777_216;

const LANCZOS_SUPPORT = 3;

/**
 * Decode a picture file. The browser applies the EXIF orientation and converts the colors to sRGB.
 *
 * @returns {Promise<{bitmap: ImageBitmap, width: number, height: number, rgba: Uint8ClampedArray, hasAlpha: boolean,
 *   isGrey: boolean}>} `rgba`: (H, W, 4), alpha not multiplied in.
 * @throws {Error} if it cannot be read, or is too large.
 */
export async function decode(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { premultiplyAlpha: "none", imageOrientation: "from-image" });
  } catch {
    throw new Error("This file is damaged, or no picture that this browser reads. Save it as PNG or JPEG.");
  }
  const { width, height } = bitmap;
  if (width * height > MAX_PIXELS) throw new Error(tooLarge(width, height));
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  let rgba = context.getImageData(0, 0, width, height).data;
  const hasAlpha = rgba.some((value, index) => index % 4 === 3 && value < 255);
  if (hasAlpha) rgba = unmultiplied(bitmap) ?? rgba;
  return { bitmap, width, height, rgba, hasAlpha, isGrey: await isGreyFile(file) };
}

/** The message for a picture of more than `MAX_PIXELS`. */
export function tooLarge(width, height) {
  const pixels = (width * height).toLocaleString("en");
  const limit = MAX_PIXELS.toLocaleString("en");
  return `This picture has ${pixels} pixels; the limit in a browser is ${limit}. Use the command line: ignn upscale.`;
}

/** Read pixels whose alpha was never multiplied in: a 2D canvas rounds the colors of what is nearly transparent. */
function unmultiplied(bitmap) {
  const gl = new OffscreenCanvas(1, 1).getContext("webgl");
  if (!gl || Math.max(bitmap.width, bitmap.height) > gl.getParameter(gl.MAX_TEXTURE_SIZE)) return null;
  const texture = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, texture);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
  gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
  gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
  if (gl.checkFramebufferStatus(gl.FRAMEBUFFER) !== gl.FRAMEBUFFER_COMPLETE) return null;
  const values = new Uint8Array(bitmap.width * bitmap.height * 4);
  gl.readPixels(0, 0, bitmap.width, bitmap.height, gl.RGBA, gl.UNSIGNED_BYTE, values);
  const failed = gl.getError() !== gl.NO_ERROR;
  gl.getExtension("WEBGL_lose_context")?.loseContext(); // frees its memory now
  return failed ? null : new Uint8ClampedArray(values.buffer);
}

/** Say whether a PNG or JPEG file holds grey values only: its result is grey too. */
export async function isGreyFile(file) {
  const bytes = new Uint8Array(await file.slice(0, 1 << 18).arrayBuffer());
  if (bytes[0] === 0x89 && bytes[1] === 0x50) return bytes[25] === 0 || bytes[25] === 4;
  if (bytes[0] !== 0xff || bytes[1] !== 0xd8) return false;
  for (let at = 2; at + 9 < bytes.length && bytes[at] === 0xff; at += 2 + bytes[at + 2] * 256 + bytes[at + 3]) {
    const marker = bytes[at + 1]; // SOF0 to SOF15 without DHT, JPG and DAC
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) return bytes[at + 9] === 1;
  }
  return false;
}

/**
 * Replace, in place, colors hidden under full transparency by the mean of what is visible around them.
 *
 * @param {Uint8ClampedArray | Float32Array} color - (H, W, channels), of which the first three are colors.
 * @param {(index: number) => number} visible - 0 for a hidden pixel; `index` counts pixels.
 */
export function fillHidden(color, visible, height, width, channels = 4) {
  const count = height * width;
  let seen = 0;
  for (let index = 0; index < count; index++) seen += visible(index) > 0 ? 1 : 0;
  if (seen === count) return;
  const halfHeight = (height + 1) >> 1;
  const halfWidth = (width + 1) >> 1;
  const mean = new Float32Array(halfHeight * halfWidth * 3);
  if (seen > 0) {
    const total = new Uint8Array(halfHeight * halfWidth);
    eachPixel(height, width, (index, half) => {
      if (!(visible(index) > 0)) return;
      total[half] += 1;
      for (let c = 0; c < 3; c++) mean[half * 3 + c] += color[index * channels + c];
    });
    for (let half = 0; half < total.length; half++) {
      for (let c = 0; c < 3; c++) mean[half * 3 + c] /= Math.max(total[half], 1);
    }
    fillHidden(mean, (half) => total[half], halfHeight, halfWidth, 3);
  }
  eachPixel(height, width, (index, half) => {
    if (visible(index) > 0) return;
    for (let c = 0; c < 3; c++) color[index * channels + c] = mean[half * 3 + c];
  });
}

function eachPixel(height, width, visit) {
  const halfWidth = (width + 1) >> 1;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) visit(y * width + x, (y >> 1) * halfWidth + (x >> 1));
  }
}

/**
 * Enlarge rows of an alpha channel by Pillow's Lanczos filter.
 *
 * @param {Uint8ClampedArray | Float32Array} rgba - (H, W, 4).
 * @param {number} first - first HR row wanted; `last` is the row behind the last one.
 * @returns {Uint8ClampedArray} (last - first, scale * W), 0..255.
 */
export function enlargeAlpha(rgba, height, width, scale, first, last) {
  const across = filterWeights(width, scale);
  const down = filterWeights(height, scale).slice(first, last);
  const top = down[0].start;
  const bottom = down.at(-1).start + down.at(-1).weights.length;
  const wide = width * scale;
  const rows = new Float32Array((bottom - top) * wide);
  for (let y = top; y < bottom; y++) {
    for (let x = 0; x < wide; x++) {
      const { start, weights } = across[x];
      let sum = 0;
      for (let k = 0; k < weights.length; k++) sum += rgba[(y * width + start + k) * 4 + 3] * weights[k];
      rows[(y - top) * wide + x] = sum;
    }
  }
  const result = new Uint8ClampedArray(down.length * wide); // it clamps, and rounds half to even
  down.forEach(({ start, weights }, row) => {
    for (let x = 0; x < wide; x++) {
      let sum = 0;
      for (let k = 0; k < weights.length; k++) sum += rows[(start - top + k) * wide + x] * weights[k];
      result[row * wide + x] = sum;
    }
  });
  return result;
}

function filterWeights(length, scale) {
  const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));
  return Array.from({ length: length * scale }, (_, position) => {
    const center = (position + 0.5) / scale;
    const start = Math.max(0, Math.trunc(center - LANCZOS_SUPPORT + 0.5));
    const stop = Math.min(length, Math.trunc(center + LANCZOS_SUPPORT + 0.5));
    const weights = Array.from({ length: stop - start }, (_, k) => {
      const x = start + k - center + 0.5;
      return x >= -LANCZOS_SUPPORT && x < LANCZOS_SUPPORT ? sinc(x) * sinc(x / LANCZOS_SUPPORT) : 0;
    });
    const sum = weights.reduce((total, weight) => total + weight, 0);
    return { start, weights: weights.map((weight) => weight / sum) };
  });
}
