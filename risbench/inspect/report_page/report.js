"use strict";
/* The records come by script tags, as a page opened from disk may fetch nothing. Every text of the data is set as text, never as markup. */

const PAGE = 48, TILE = 160, ACROSS = 4, PER_SHEET = 16, PER_SHARD = 256;
const state = { summary: null, records: null, shown: [], page: 0, open: -1, shards: new Map(), waiting: new Map() };
const $ = (id) => document.getElementById(id);
const filters = $("filters").elements;
const number = (value) => value.toLocaleString("en");

function element(name, text, properties = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  return Object.assign(made, properties);
}

window.risbench = {
  summary(value) { state.summary = value; showSummary(value); },
  records(value) { state.records = value; start(); },
  shard(index, value) {
    state.shards.set(index, value);
    for (const resolve of state.waiting.get(index) || []) resolve(value);
    state.waiting.delete(index);
  },
};

function showSummary(summary) {
  document.title = `${summary.name}: risbench report`;
  $("title").textContent = summary.name;
  $("lead").textContent = summary.lead;
  $("warnings").replaceChildren(...summary.warnings.map((text) => element("li", text)));
  const list = element("dl");
  for (const [name, value] of summary.facts) list.append(element("dt", name), element("dd", value));
  $("facts").replaceChildren(list);
  $("figures").replaceChildren(...summary.figures.map(([file, said]) => {
    const figure = element("figure");
    figure.append(element("img", undefined, { src: file, alt: said, loading: "lazy" }), element("figcaption", said));
    return figure;
  }));
  $("tables").replaceChildren(...summary.tables.map(({ caption, columns, rows }) => {
    const table = element("table");
    table.append(element("caption", caption));
    const head = table.createTHead().insertRow();
    for (const column of columns) head.append(element("th", column, { scope: "col" }));
    const body = table.createTBody();
    for (const [name, ...values] of rows) {
      const row = body.insertRow();
      row.append(element("th", name, { scope: "row" }), ...values.map((value) => element("td", typeof value === "number" ? number(value) : value)));
    }
    return table;
  }));
}

function start() {
  const { names, columns } = state.records;
  for (const key of ["class", "size", "split", "status", "problem", "audit"]) {
    const counts = new Map();
    for (const value of columns[key]) counts.set(value, (counts.get(value) || 0) + 1);
    const options = names[key].map((name, index) => [index, name]).filter(([index]) => counts.has(index));
    fill(filters[key], options.map(([index, name]) => [String(index), `${name} (${number(counts.get(index))})`]));
  }
  $("audit-label").hidden = names.audit.length < 2;
  const kinds = names.attribute.map((name, bit) => {
    let count = 0;
    for (const bits of columns.attribute) count += (bits >> bit) & 1;
    return [String(bit), `${name} (${number(count)})`];
  });
  fill(filters.attribute, kinds);
  state.lower = state.records.sentences.map((text, index) => `${text}\n${state.records.ids[index]}`.toLowerCase());
  fromAddress();
  $("filters").addEventListener("input", () => { state.page = 0; apply(); });
  $("filters").addEventListener("reset", () => setTimeout(() => { state.page = 0; apply(); }));
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("previous").addEventListener("click", () => turn(state.page - 1));
  $("next").addEventListener("click", () => turn(state.page + 1));
  $("page").addEventListener("change", () => turn(Number($("page").value) - 1));
  window.addEventListener("hashchange", () => { fromAddress(); apply(); });
  document.querySelector(".skip").addEventListener("click", (event) => { /* followed as a link it would take the filters out of the address */
    event.preventDefault();
    $("results").focus();
  });
  apply();
}

function fill(select, options) {
  select.replaceChildren(element("option", "all", { value: "" }), ...options.map(([value, text]) => element("option", text, { value })));
}

const NAMES = ["class", "size", "attribute", "split", "status", "problem", "audit", "risk", "words", "order"];

function fromAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const name of NAMES) {
    const control = filters[name];
    const before = name === "order" ? "worst" : name === "risk" ? "0" : "";
    control.value = given.get(name) ?? before;
    if (control.value === "" && control.options) control.value = before;
  }
  state.page = Math.max(0, Math.floor(Number(given.get("page")) || 1) - 1);
}

function toAddress() {
  const made = new URLSearchParams();
  for (const name of NAMES) {
    const value = filters[name].value;
    if (value && !(name === "order" && value === "worst") && !(name === "risk" && Number(value) === 0)) made.set(name, value);
  }
  if (state.page) made.set("page", state.page + 1);
  history.replaceState(null, "", `#${made}`);
}

function apply() {
  const { columns, ids } = state.records;
  const wanted = ["class", "size", "split", "status", "problem", "audit"]
    .filter((name) => filters[name].value !== "")
    .map((name) => [columns[name], Number(filters[name].value)]);
  const bit = filters.attribute.value === "" ? -1 : Number(filters.attribute.value);
  const least = Math.round(1000 * (Number(filters.risk.value) || 0));
  const words = filters.words.value.toLowerCase().split(/\s+/).filter(Boolean);
  const shown = [];
  for (let index = 0; index < ids.length; index++) {
    if (wanted.some(([column, value]) => column[index] !== value)) continue;
    if (bit >= 0 && !((columns.attribute[index] >> bit) & 1)) continue;
    if (least > 0 && columns.risk[index] < least) continue;
    if (words.length && !words.every((word) => state.lower[index].includes(word))) continue;
    shown.push(index);
  }
  const order = filters.order.value;
  if (order === "safe") shown.reverse();
  if (order === "id") shown.sort((a, b) => (ids[a] < ids[b] ? -1 : 1));
  if (order === "shuffled") {
    let seed = 1;
    for (let last = shown.length - 1; last > 0; last--) {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      const other = seed % (last + 1);
      [shown[last], shown[other]] = [shown[other], shown[last]];
    }
  }
  state.shown = shown;
  show();
}

function turn(page) {
  state.page = page;
  show();
  $("results").focus();
}

function show() {
  const pages = Math.max(1, Math.ceil(state.shown.length / PAGE));
  state.page = Math.min(Math.max(0, Math.floor(state.page) || 0), pages - 1);
  const first = state.page * PAGE;
  const here = state.shown.slice(first, first + PAGE);
  $("results").replaceChildren(...here.map((index, place) => card(index, place)));
  const total = number(state.records.ids.length);
  $("count").textContent = state.shown.length
    ? `${number(first + 1)} to ${number(first + here.length)} of ${number(state.shown.length)} records (of ${total})`
    : `No record is like that (of ${total}).`;
  $("page").value = state.page + 1;
  $("page").max = pages;
  $("pages").textContent = `of ${number(pages)}`;
  $("previous").disabled = state.page === 0;
  $("next").disabled = state.page === pages - 1;
  toAddress();
}

const named = (key, index) => state.records.names[key][state.records.columns[key][index]];
const riskOf = (index) => state.records.columns.risk[index];

function marksOf(index) {
  const marks = [named("class", index), named("size", index), named("split", index), named("status", index)].filter((name) => name !== "none");
  if (riskOf(index) >= 0) marks.push(`risk ${(riskOf(index) / 1000).toFixed(2)}`);
  return marks.join(" · ");
}

function tileStyle(target, index) {
  const sheet = Math.floor(index / PER_SHEET), place = index % PER_SHEET;
  target.style.backgroundImage = `url("tiles/${String(sheet).padStart(5, "0")}.jpg")`;
  target.style.backgroundPosition = `${-TILE * (place % ACROSS)}px ${-TILE * Math.floor(place / ACROSS)}px`;
}

function card(index, place) {
  const item = element("li"), button = element("button", undefined, { type: "button", className: "record" });
  button.dataset.place = place;
  const tile = element("span", undefined, { className: "tile" });
  tileStyle(tile, index);
  tile.setAttribute("role", "img");
  tile.setAttribute("aria-label", `${riskOf(index) < 0 ? "image, without a mask," : "image with the mask"} of a ${named("class", index)}`);
  const marks = element("span", marksOf(index), { className: "marks" });
  for (const [key, good] of [["problem", "none"], ["audit", "good"]]) {
    const name = named(key, index);
    if (name !== "none" && name !== good) marks.append(" ", element("b", name));
  }
  button.append(tile, element("span", state.records.sentences[index] || "(no sentence)", { className: "said" }), marks);
  button.addEventListener("click", () => open(state.page * PAGE + place));
  item.append(button);
  return item;
}

$("results").addEventListener("keydown", (event) => {
  const buttons = [...$("results").querySelectorAll("button")];
  const at = buttons.indexOf(document.activeElement);
  if (at < 0) {
    if (event.key === "ArrowDown" || event.key === "ArrowRight") { buttons[0]?.focus(); event.preventDefault(); }
    return;
  }
  const row = buttons.filter((button) => button.offsetTop === buttons[0].offsetTop).length;
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: row, ArrowUp: -row }[event.key];
  const to = event.key === "Home" ? 0 : event.key === "End" ? buttons.length - 1 : step === undefined ? -1 : at + step;
  if (to >= 0 && to < buttons.length) { buttons[to].focus(); event.preventDefault(); }
});

function shard(index) {
  if (state.shards.has(index)) return Promise.resolve(state.shards.get(index));
  return new Promise((resolve, reject) => {
    if (state.waiting.has(index)) { state.waiting.get(index).push(resolve); return; }
    state.waiting.set(index, [resolve]);
    const script = element("script", undefined, { src: `data/masks-${String(index).padStart(5, "0")}.js` });
    script.onerror = () => { state.waiting.delete(index); reject(new Error("missing")); };
    document.head.append(script);
  });
}

/* COCO's compressed run lengths: 5 bits a character, a sixth says that more follow; from the third run on, differences to the one two before. */
function decode(counts) {
  const runs = [];
  for (let at = 0; at < counts.length;) {
    let value = 0, shift = 0, more = true;
    while (more) {
      const bits = counts.charCodeAt(at++) - 48;
      value |= (bits & 31) << shift;
      more = (bits & 32) !== 0;
      shift += 5;
      if (!more && (bits & 16)) value |= -1 << shift;
    }
    if (runs.length > 2) value += runs[runs.length - 2];
    runs.push(value);
  }
  return runs;
}

function paint(entry) {
  const canvas = $("overlay"), [height, width] = entry.image;
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  if (entry.counts && $("show-mask").checked) {
    const inside = new Uint8Array(height * width), data = context.createImageData(width, height);
    let at = 0, on = 0;
    for (const run of decode(entry.counts)) { if (on) inside.fill(1, at, at + run); at += run; on = 1 - on; }
    const is = (x, y) => x >= 0 && y >= 0 && x < width && y < height && inside[x * height + y];
    for (let x = 0; x < width; x++) for (let y = 0; y < height; y++) {
      if (!inside[x * height + y]) continue;
      const edge = !(is(x - 1, y) && is(x + 1, y) && is(x, y - 1) && is(x, y + 1));
      data.data.set(edge ? [255, 214, 10, 255] : [255, 214, 10, 80], 4 * (y * width + x));
    }
    context.putImageData(data, 0, 0);
  }
  if ($("show-box").checked) {
    context.strokeStyle = "rgb(255, 80, 200)";
    context.lineWidth = Math.max(1, width / 512);
    for (const corners of entry.boxes) {
      context.beginPath();
      corners.forEach(([x, y], index) => (index ? context.lineTo(x, y) : context.moveTo(x, y)));
      context.closePath();
      context.stroke();
    }
  }
}

async function open(place) {
  if (place < 0 || place >= state.shown.length) return;
  state.open = place;
  const index = state.shown[place];
  $("detail-title").textContent = state.records.sentences[index] || "(no sentence)";
  $("fields").replaceChildren();
  $("image-note").textContent = "";
  $("before").disabled = place === 0;
  $("after").disabled = place === state.shown.length - 1;
  const canvas = $("overlay");
  canvas.width = canvas.height = 1;
  if (!$("detail").open) $("detail").showModal();
  let entry;
  try {
    entry = (await shard(Math.floor(index / PER_SHARD)))[index % PER_SHARD];
  } catch {
    $("image-note").textContent = "A file of this report is missing: data/masks-….js. Make the report again.";
    return;
  }
  if (state.open !== place) return;
  const image = $("image");
  image.alt = `the image of: ${state.records.sentences[index] || state.records.ids[index]}`;
  image.onload = () => paint(entry);
  image.onerror = () => {
    image.onerror = null;
    $("image-note").textContent = entry.path
      ? "The image is not where it was when this report was made; below, its tile."
      : "This release holds its images in tables or archives, so only the tile can be shown.";
    const tile = element("span", undefined, { className: "tile" });
    tile.style.cssText = `display:block;width:${TILE}px;height:${TILE}px`;
    tileStyle(tile, index);
    $("image-note").append(tile);
    paint(entry);
  };
  image.style.aspectRatio = `${entry.image[1]} / ${entry.image[0]}`;
  if (entry.path) image.src = entry.path; else { image.removeAttribute("src"); image.onerror(); }
  const rows = [["id", state.records.ids[index]], ...entry.fields];
  for (const [name, value] of rows) $("fields").append(element("dt", name), element("dd", value));
  paint(entry);
}

$("detail").addEventListener("close", () => {
  const page = Math.floor(state.open / PAGE);
  if (page !== state.page) { state.page = page; show(); }
  $("results").querySelectorAll("button")[state.open % PAGE]?.focus();
});
$("detail").addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const key = event.key.toLowerCase();
  if (key === "arrowright") open(state.open + 1);
  else if (key === "arrowleft") open(state.open - 1);
  else if (key === "m" || key === "b") $(key === "m" ? "show-mask" : "show-box").click();
  else return;
  event.preventDefault();
});
for (const id of ["show-mask", "show-box"]) $(id).addEventListener("change", () => {
  const index = state.shown[state.open], entries = state.shards.get(Math.floor(index / PER_SHARD));
  if (entries) paint(entries[index % PER_SHARD]);
});
$("before").addEventListener("click", () => open(state.open - 1));
$("after").addEventListener("click", () => open(state.open + 1));
$("close").addEventListener("click", () => $("detail").close());
