// A PNG written band of rows by band of rows, so that a large result is never in memory uncompressed.
// A canvas could not do it: its size is bounded, and it rounds the colors of what is nearly transparent.

const SIGNATURE = new Uint8Array([137, 80, 78, 71, 13, 10, 26, 10]);
const COLOR_TYPE = { 1: 0, 2: 4, 3: 2, 4: 6 }; // by channels: grey, grey and alpha, RGB, RGBA
const FOLDED = 8 << 20; // so many compressed bytes are handed to the browser at once, which may keep them on disk

const CRC_TABLE = new Uint32Array(256).map((_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

export class PngWriter {
  /** @param {number} channels - 1 to 4: grey, grey and alpha, RGB, RGBA; 8 bits each, sRGB. */
  constructor(width, height, channels) {
    this._stride = width * channels;
    this._above = new Uint8Array(this._stride);
    const header = new Uint8Array(13);
    const view = new DataView(header.buffer);
    view.setUint32(0, width);
    view.setUint32(4, height);
    header.set([8, COLOR_TYPE[channels], 0, 0, 0], 8);
    this._parts = [SIGNATURE, ...chunk("IHDR", header), ...chunk("sRGB", new Uint8Array([0]))];
    const deflate = new CompressionStream("deflate");
    this._writer = deflate.writable.getWriter();
    this._compressed = this._collect(deflate.readable.getReader());
  }

  /** Add the next rows: whole ones, from top to bottom. */
  async add(rows) {
    const stride = this._stride;
    const count = rows.length / stride;
    const filtered = new Uint8Array(rows.length + count);
    for (let row = 0; row < count; row++) {
      const from = row * stride;
      const to = from + row + 1;
      filtered[to - 1] = 2; // filter Up: the difference from the row above
      for (let index = 0; index < stride; index++) filtered[to + index] = rows[from + index] - this._above[index];
      this._above = rows.subarray(from, from + stride);
    }
    this._above = this._above.slice(); // or the whole band would stay in memory
    await this._writer.write(filtered);
  }

  /** @returns {Promise<Blob>} the file. */
  async finish() {
    await this._writer.close();
    await this._compressed;
    return new Blob([...this._parts, ...chunk("IEND", new Uint8Array())], { type: "image/png" });
  }

  async _collect(reader) {
    let pending = [];
    let bytes = 0;
    for (;;) {
      const { done, value } = await reader.read();
      if (value) pending.push(...chunk("IDAT", value));
      bytes += value?.length ?? 0;
      if (done || bytes > FOLDED) {
        this._parts.push(new Blob(pending));
        [pending, bytes] = [[], 0];
      }
      if (done) return;
    }
  }
}

function chunk(kind, data) {
  const head = new Uint8Array(8);
  new DataView(head.buffer).setUint32(0, data.length);
  head.set(new TextEncoder().encode(kind), 4);
  let crc = 0xffffffff;
  for (const bytes of [head.subarray(4), data]) {
    for (let index = 0; index < bytes.length; index++) crc = CRC_TABLE[(crc ^ bytes[index]) & 255] ^ (crc >>> 8);
  }
  const tail = new Uint8Array(4);
  new DataView(tail.buffer).setUint32(0, ~crc >>> 0);
  return [head, data, tail];
}
