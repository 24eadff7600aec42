// What a model file says about itself, read from its bytes: an ONNX file is a protocol buffer, a sequence of
// (field number, wire type, value). The numbers are those of onnx.proto.

const GRAPH = 7; // of ModelProto
const METADATA = 14;
const KEY = 1; // of StringStringEntryProto
const VALUE = 2;

const FORMAT = "1";
const UNKNOWN_BYTES_PER_PIXEL = 32768;
const AGAIN = "Export the model again with `ignn export`.";

/**
 * Read the metadata of an ONNX file that `ignn export` made, and check it.
 *
 * @param {Uint8Array} bytes - the whole file.
 * @returns {{name: string, scale: number, halo: number, tileMultiple: number, window: number, bytesPerPixel: number}}
 *   `halo` and `tileMultiple` in LR pixels, `window` in patches of `tileMultiple` pixels (0: no graph),
 *   `bytesPerPixel`: peak memory per LR pixel of a crop.
 * @throws {Error} if it is no such file.
 */
export function readMetadata(bytes) {
  const properties = readProperties(bytes);
  const choice = (key, ...accepted) => {
    const text = properties.get(`ignn.${key}`);
    if (!accepted.includes(text)) {
      const supported = accepted.join(", ");
      throw new Error(`The model's metadata ignn.${key} is ${text}. Supported values: ${supported}. ${AGAIN}`);
    }
    return text;
  };
  const integer = (key, low, high) => {
    const text = properties.get(`ignn.${key}`) ?? "missing";
    if (!/^[0-9]{1,15}$/.test(text) || Number(text) < low || Number(text) > high) {
      throw new Error(`The model's metadata ignn.${key} is ${text}; ${low} to ${high} is expected. ${AGAIN}`);
    }
    return Number(text);
  };
  choice("format", FORMAT);
  choice("color", "RGB");
  choice("value_range", "0..255");
  choice("precision", "fp32", "fp16");
  const tileMultiple = integer("tile_multiple", 1, 64);
  if (tileMultiple !== 2 * integer("graph_scale", 1, 16)) {
    throw new Error(`The model's metadata ignn.tile_multiple is not twice ignn.graph_scale. ${AGAIN}`);
  }
  return {
    name: properties.get("ignn.name") ?? "unnamed",
    scale: integer("scale", 1, 16),
    halo: integer("halo", 0, 4096),
    tileMultiple,
    window: integer("window", 0, 1024),
    bytesPerPixel: integer("bytes_per_pixel", 0, 2 ** 30) || UNKNOWN_BYTES_PER_PIXEL,
  };
}

function readProperties(bytes) {
  const properties = new Map();
  const text = new TextDecoder("utf-8", { fatal: true });
  let hasGraph = false;
  try {
    for (const [number, value] of fields(bytes)) {
      hasGraph ||= number === GRAPH;
      if (number === METADATA) {
        const entry = new Map(fields(value));
        properties.set(text.decode(entry.get(KEY)), text.decode(entry.get(VALUE)));
      }
    }
  } catch (error) {
    throw new Error(`The model is not an ONNX file, or a damaged one (${error.message}). ${AGAIN}`);
  }
  if (!hasGraph) throw new Error(`The model is not an ONNX file: it has no graph. ${AGAIN}`);
  return properties;
}

/** The length-delimited fields of a message, as [field number, bytes]; others are skipped. */
function* fields(message) {
  let position = 0;
  const varint = () => {
    let value = 0;
    for (let shift = 0; shift < 64; shift += 7) {
      if (position >= message.length) throw new Error("truncated");
      const byte = message[position++];
      value += (byte & 127) * 2 ** shift; // a bit shift would keep 32 bits only
      if (byte < 128) return value;
    }
    throw new Error("a number of more than 64 bits");
  };
  while (position < message.length) {
    const tag = varint();
    const kind = tag % 8;
    if (kind === 0) {
      varint();
      continue;
    }
    const length = kind === 1 ? 8 : kind === 5 ? 4 : kind === 2 ? varint() : NaN;
    if (!(position + length <= message.length)) throw new Error(`wire type ${kind}, or truncated`);
    if (kind === 2) yield [Math.floor(tag / 8), message.subarray(position, position + length)];
    position += length;
  }
}
