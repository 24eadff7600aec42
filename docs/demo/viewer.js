// What the page shows of the picture that runs: before and after, the slider between them, the time that is left.

const element = (id) => document.getElementById(id);
const LARGEST_ZOOM = 2; // a small result is shown at most so much larger than it is
let ticking = null;

/** Show the picture that begins: enlarged by the browser, tiles of the network's result come over it. */
export function showPicture({ bitmap, width, height, scale, reduction, tiles }, name) {
  const size = { width: Math.ceil((width * scale) / reduction), height: Math.ceil((height * scale) / reduction) };
  for (const id of ["before", "after"]) Object.assign(element(id), size); // which empties them too
  const context = element("before").getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, size.width, size.height);
  bitmap.close();
  element("compare").style.width = `${size.width * LARGEST_ZOOM}px`;
  element("compare").classList.add("running");
  element("empty").hidden = true;
  element("viewer").hidden = false;
  const shown = reduction > 1 ? ` Shown reduced ${reduction} times; the PNG file is whole.` : "";
  const cut = tiles > 1 ? `, ${tiles} tiles` : "";
  element("caption").textContent =
    `${name}: ${width} × ${height} to ${width * scale} × ${height * scale} pixels${cut}. ` +
    `Before: enlarged by the browser. After: by the network.${shown}`;
}

/** Put one tile of the result in its place. */
export function showTile({ image, left, top }) {
  element("after").getContext("2d").putImageData(image, left, top);
}

/** Take the picture away: it was cancelled. */
export function hideViewer() {
  element("viewer").hidden = true;
  element("empty").hidden = false;
}

/** Move the divider; `percent` of the width, from the left, is "before". */
export function setSlider(percent) {
  element("compare").style.setProperty("--divide", `${percent}%`);
  element("slider").setAttribute("aria-valuetext", `${percent}% before, ${100 - percent}% after`);
}

/**
 * Show how far the picture is; null: it has ended.
 *
 * @param {{text?: string, secondsLeft?: number, tiles?: number, tilesDone?: number} | null} state - `secondsLeft` is
 *   counted down from here.
 */
export function showProgress(state) {
  clearInterval(ticking);
  element("progress").hidden = state === null;
  if (state === null) {
    element("compare").classList.remove("running");
    return;
  }
  if (state.text) {
    element("bar").removeAttribute("value");
    element("left").textContent = state.text;
    return;
  }
  const start = performance.now();
  const tick = () => {
    const spent = (performance.now() - start) / 1000;
    const left = Math.max(0, state.secondsLeft - spent);
    // Tiles are of like size, so the share of time is the share of tiles; inside a tile only time tells.
    const share = state.tilesDone / state.tiles;
    element("bar").value = share + (1 - share) * Math.min(0.99, spent / Math.max(state.secondsLeft, 0.1));
    element("left").textContent = left < 1 ? "nearly done" : `about ${duration(left)} left`;
  };
  tick();
  ticking = setInterval(tick, 500);
}

function duration(seconds) {
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}
