// A model file in onnxruntime-web: WebAssembly, or WebGPU where the browser has it and agrees with WebAssembly.

const LIBRARY = "./node_modules/onnxruntime-web/dist/";
const MAX_THREADS = 16;
const CHECKED_SIDE = 160; // LR pixels: more than the graph's window, and soon done
const TIMED_SIDE = 64;
const WARM_SIDE = 8; // the first run of a session is slower than those after it

/** WebGPU may differ from WebAssembly by so much, in levels of 0..255; a rounded pixel is then within one level. */
export const TOLERANCE = 0.5;

/**
 * Open a model on the fastest provider that can be trusted here.
 *
 * @param {Uint8Array} model - an ONNX file; input `lr`, output `sr`, (1, 3, H, W) float32 0..255.
 * @param {(height: number, width: number) => Float32Array} firstTile - gives the (3, height, width) pixels at the
 *   upper left of the first tile; called with at most its own size.
 * @param {{height: number, width: number}} size - of the first tile's crop.
 * @returns {Promise<{run: Function, release: Function, line: string, secondsPerPixel: number}>} `line`: what runs it,
 *   for the user.
 */
export async function openEngine(model, firstTile, size) {
  const threads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, MAX_THREADS) : 1;
  const wasm = await openProvider("wasm", model, threads);
  const plural = threads === 1 ? "1 thread" : `${threads} threads`;
  const isolated = self.crossOriginIsolated ? "" : ": this page is not served by `ignn demo`";
  const line = `Runs by WebAssembly, ${plural}${isolated}`;
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  if (!adapter) {
    await timedRun(wasm, firstTile, size, WARM_SIDE);
    const timed = await timedRun(wasm, firstTile, size, TIMED_SIDE);
    return { ...wasm, line: `${line}. No WebGPU in this browser.`, secondsPerPixel: timed.secondsPerPixel };
  }
  const expected = await timedRun(wasm, firstTile, size, CHECKED_SIDE);
  const useWasm = (reason) => ({
    ...wasm,
    line: `${line}. WebGPU is not used: ${reason}.`,
    secondsPerPixel: expected.secondsPerPixel,
  });
  let gpu;
  try {
    gpu = await openProvider("webgpu", model, threads);
    await timedRun(gpu, firstTile, size, CHECKED_SIDE); // it makes the shaders
    const found = await timedRun(gpu, firstTile, size, CHECKED_SIDE);
    const difference = largestDifference(found.sr, expected.sr);
    if (!(difference <= TOLERANCE)) {
      await gpu.release();
      return useWasm(`its first tile differs from WebAssembly's by ${difference.toPrecision(2)} of 255`);
    }
    await wasm.release();
    const agrees = `its first tile agrees with WebAssembly's (within ${difference.toPrecision(1)} of 255)`;
    return { ...gpu, line: `Runs on the GPU by WebGPU; ${agrees}.`, secondsPerPixel: found.secondsPerPixel };
  } catch (error) {
    await gpu?.release().catch(() => {});
    return useWasm(`it failed (${String(error.message ?? error).split("\n")[0].slice(0, 120)})`);
  }
}

async function openProvider(provider, model, threads) {
  const ort = await import(`${LIBRARY}ort.${provider}.min.mjs`).catch(() => {
    throw new Error("onnxruntime-web is missing. Run `npm ci --ignore-scripts --prefix docs/demo`, then load again.");
  });
  ort.env.wasm.numThreads = threads;
  const session = await ort.InferenceSession.create(model, {
    executionProviders: [provider],
    enableCpuMemArena: false, // an arena would keep the peak of every crop's size
    enableMemPattern: false,
    logSeverityLevel: 3,
  });
  return {
    /** (3, height, width) in, (3, scale * height, scale * width) out, both 0..255. */
    run: async (lr, height, width) => {
      const input = new ort.Tensor("float32", lr, [1, 3, height, width]);
      const { sr } = await session.run({ lr: input });
      const values = await sr.getData();
      sr.dispose();
      return values;
    },
    release: () => session.release(),
  };
}

async function timedRun(provider, firstTile, size, side) {
  const height = Math.min(size.height, side);
  const width = Math.min(size.width, side);
  const lr = firstTile(height, width);
  const start = performance.now();
  const sr = await provider.run(lr, height, width);
  return { sr, secondsPerPixel: (performance.now() - start) / 1000 / (height * width) };
}

/** Return the largest difference of two arrays; NaN if either holds a NaN, Infinity if their lengths differ. */
export function largestDifference(one, other) {
  if (one.length !== other.length) return Infinity;
  let largest = 0;
  for (let index = 0; index < one.length; index++) {
    const difference = Math.abs(one[index] - other[index]);
    if (!(difference <= largest)) largest = difference; // a NaN too, which then stays
    if (Number.isNaN(largest)) return NaN;
  }
  return largest;
}
