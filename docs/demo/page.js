// The page: takes pictures, keeps them in a queue, shows the one that runs. The work is done by `worker.js`.

import { MAX_PIXELS, tooLarge } from "./picture.js";
import { hideViewer, setSlider, showPicture, showProgress, showTile } from "./viewer.js";

const KINDS = {
  errors: ["IGNN-E", "with the graph of errors"],
  graph: ["IGNN", "with the paper's graph"],
  plain: ["Fast", "EDSR, no graph"],
};
const MEGABYTES = { most: 2500, unknown: 1500, least: 300 };
const SAMPLE = new URL("../../assets/sample.png", import.meta.url);
const MODELS = new URL("../../runtime/models/models.json", import.meta.url);

const element = (id) => document.getElementById(id);
const queue = []; // of jobs: {file, model, state, item, url}
let models = [];
let worker = null;
let running = null;

/** Memory that the network may take: `?memory=` in the address, else a third of what the browser says it has. */
function memoryMegabytes() {
  const asked = Number(new URLSearchParams(location.search).get("memory"));
  if (asked > 0) return asked;
  if (!navigator.deviceMemory) return MEGABYTES.unknown;
  return Math.min(MEGABYTES.most, (navigator.deviceMemory * 1024) / 3);
}

async function start() {
  element("file").addEventListener("change", (event) => {
    add([...event.target.files]);
    event.target.value = ""; // so that the same file can be chosen again
  });
  element("sample").addEventListener("click", addSample);
  element("slider").addEventListener("input", (event) => setSlider(event.target.value));
  document.addEventListener("paste", (event) => add([...event.clipboardData.files], "The clipboard holds no picture."));
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    element("drop").classList.add("over");
  });
  document.addEventListener("dragleave", () => element("drop").classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    element("drop").classList.remove("over");
    add([...event.dataTransfer.files], "What was dropped is no file.");
  });
  addEventListener("beforeunload", (event) => running && event.preventDefault());
  try {
    const content = await (await fetch(MODELS)).json();
    models = content.models;
    offerChoices(models.find((model) => model.name === content.default));
  } catch (error) {
    complain(`The list of models cannot be read (${error.message}). Serve this page with \`ignn demo\`.`);
  }
}

function offerChoices(first) {
  const scales = [...new Set(models.map((model) => model.scale))].sort();
  const kinds = [...new Set(models.map((model) => model.kind))].sort();
  offer("scales", "scale", scales.map((scale) => [String(scale), `×${scale}`]), String(first.scale));
  offer("kinds", "kind", kinds.map((kind) => [kind, ...(KINDS[kind] ?? [kind])]), first.kind);
}

function offer(id, name, choices, chosen) {
  element(id).replaceChildren(
    ...choices.map(([value, text, hint]) => {
      const input = Object.assign(document.createElement("input"), { type: "radio", name, value });
      input.checked = value === chosen;
      const label = document.createElement("label");
      label.append(input, text);
      if (hint) label.append(Object.assign(document.createElement("small"), { textContent: hint }));
      return label;
    }),
  );
}

function chosenModel() {
  const value = (name) => document.querySelector(`input[name=${name}]:checked`)?.value;
  return models.find((model) => model.scale === Number(value("scale")) && model.kind === value("kind"));
}

async function addSample() {
  try {
    const answer = await fetch(SAMPLE);
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    await add([new File([await answer.blob()], "sample.png", { type: "image/png" })]);
  } catch (error) {
    complain(`The sample cannot be loaded (${error.message}). Choose a picture of your own.`);
  }
}

async function add(files, otherwise = "") {
  complain(files.length ? "" : otherwise);
  const model = chosenModel();
  if (!model && files.length) return complain("No network of this kind and size is bundled. Choose another.");
  for (const file of files) {
    const job = { file, model, state: "waiting" };
    job.item = itemOf(job);
    element("queue").append(job.item);
    element("queue-title").hidden = false;
    const problem = await problemOf(file);
    if (job.state !== "waiting") continue; // cancelled meanwhile
    if (problem) end(job, "failed", problem);
    else {
      queue.push(job);
      next();
    }
  }
}

/** Say what is wrong with a file before its turn comes, by its header alone: nothing is decoded yet. */
async function problemOf(file) {
  if (file.size === 0) return "This file is empty.";
  const image = new Image();
  image.src = URL.createObjectURL(file);
  try {
    await new Promise((resolve, reject) => Object.assign(image, { onload: resolve, onerror: reject }));
    const { naturalWidth, naturalHeight } = image;
    return naturalWidth * naturalHeight > MAX_PIXELS ? tooLarge(naturalWidth, naturalHeight) : null;
  } catch {
    return "This file is damaged, or no picture that this browser reads. Save it as PNG or JPEG.";
  } finally {
    URL.revokeObjectURL(image.src);
    image.src = "";
  }
}

function next() {
  if (running || queue.length === 0) return;
  running = queue.shift();
  setState(running, "running", "Starting");
  run(running, memoryMegabytes());
}

function run(job, megabytes) {
  worker ??= new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  worker.onmessage = ({ data }) => handlers[data.type](data, job, megabytes);
  worker.onerror = (event) => {
    stopWorker();
    end(job, "failed", `The worker ended (${event.message ?? "out of memory"}). Load the page again.`);
  };
  worker.postMessage({ file: job.file, model: { ...job.model }, memoryMegabytes: megabytes });
}

const handlers = {
  stage({ text }, job) {
    setState(job, "running", text);
    showProgress({ text });
  },
  engine({ line }) {
    element("engine").textContent = line;
  },
  picture(data, job) {
    job.tiles = data.tiles;
    job.tilesDone = 0;
    showPicture(data, job.file.name);
    announce(`${job.file.name}: started, ${data.tiles === 1 ? "1 tile" : `${data.tiles} tiles`}`);
  },
  speed({ secondsLeft }, job) {
    setState(job, "running", job.tiles === 1 ? "Enlarging" : `Enlarging, tile ${job.tilesDone + 1} of ${job.tiles}`);
    showProgress({ secondsLeft, tiles: job.tiles, tilesDone: job.tilesDone });
  },
  tile(data, job) {
    job.tilesDone += 1;
    showTile(data);
    if (job.tiles > 3 && job.tilesDone === Math.floor(job.tiles / 2)) announce(`${job.file.name}: half done`);
  },
  done({ blob }, job) {
    job.url = URL.createObjectURL(blob);
    end(job, "done", `Done: ${(blob.size / 1e6).toFixed(1)} MB`);
  },
  failed({ message }, job) {
    end(job, "failed", message);
  },
  memory(_, job, megabytes) {
    stopWorker(); // its memory cannot be given back in any other way
    if (megabytes / 2 < MEGABYTES.least) {
      const message = "There is not enough memory for one tile. Close other tabs, or choose Fast or a smaller size.";
      return end(job, "failed", message);
    }
    handlers.stage({ text: "Memory ran out: starting again with smaller tiles" }, job);
    return run(job, megabytes / 2);
  },
};

function cancel(job) {
  const index = queue.indexOf(job);
  if (index >= 0) queue.splice(index, 1);
  if (job === running) {
    stopWorker(); // at once, in the middle of a tile
    hideViewer();
  }
  end(job, "cancelled", "Cancelled");
}

function end(job, state, text) {
  setState(job, state, text);
  announce(`${job.file.name}: ${text}`);
  if (job !== running) return;
  running = null;
  showProgress(null);
  next();
}

function stopWorker() {
  worker?.terminate();
  worker = null;
}

function itemOf(job) {
  const item = document.createElement("li");
  const what = Object.assign(document.createElement("div"), { className: "what" });
  const name = Object.assign(document.createElement("span"), { className: "name", textContent: job.file.name });
  const state = Object.assign(document.createElement("span"), { className: "state", textContent: "Waiting" });
  what.append(name, state);
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: "Cancel" });
  button.className = "quiet";
  button.setAttribute("aria-label", `Cancel ${job.file.name}`);
  button.addEventListener("click", () => cancel(job));
  item.append(what, button);
  return item;
}

function setState(job, state, text) {
  job.state = state;
  job.item.className = state;
  job.item.querySelector(".state").textContent = `×${job.model.scale} · ${text}`;
  if (state === "waiting" || state === "running") return;
  const hadFocus = job.item.contains(document.activeElement);
  job.item.querySelector("button")?.remove();
  if (state !== "done") return;
  const link = Object.assign(document.createElement("a"), { className: "button", textContent: "Save PNG" });
  link.href = job.url;
  link.download = `${job.file.name.replace(/\.[^.]*$/, "")}_x${job.model.scale}.png`;
  link.setAttribute("aria-label", `Save ${link.download}`);
  job.item.append(link);
  if (hadFocus) link.focus();
}

function complain(text) {
  element("message").textContent = text;
}

function announce(text) {
  element("status").textContent = text;
}

start();
