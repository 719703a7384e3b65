// Everything from the data is set as text or as the source of a picture, never as markup: texts and names are untrusted.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function shape(tag, attributes = {}, text = "") {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text) node.textContent = text;
  return node;
}

const percent = (value, digits = 1) => (value == null ? "–" : (100 * value).toFixed(digits));
const number = (value) => (value == null ? "–" : Number(value.toPrecision(4)).toString());

// Round steps for an axis from `low` to `high`.
function ticks(low, high, wanted) {
  const rough = (high - low) / wanted || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= 0.7 * rough);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

// ---------------------------------------------------------------- theme and head

const root = document.documentElement;
$("theme").addEventListener("click", () => {
  const order = ["system", "light", "dark"];
  const next = order[(order.indexOf(root.dataset.theme ?? "system") + 1) % order.length];
  if (next === "system") delete root.dataset.theme;
  else root.dataset.theme = next;
  $("theme").textContent = `Theme: ${next}`;
});

const { facts } = data;
$("name").textContent = data.name;
$("lede").textContent =
  `${facts.images} ${data.split} image${facts.images === 1 ? "" : "s"} of ${facts.dataset || "a data set"}, ` +
  `segmented after ${facts.labels} annotated one${facts.labels === 1 ? "" : "s"} (${facts.made}).`;

for (const { level, text } of data.caveats) {
  const sign = element("span", { class: "sign", role: "img", "aria-label": level === "warning" ? "Warning" : "Note" });
  sign.textContent = level === "warning" ? "!" : "i";
  $("caveats").append(element("div", { class: `caveat ${level}` }, sign, element("span", {}, text)));
}

// ---------------------------------------------------------------- table of scores

function scoreTable() {
  const values = data.scores.flatMap(({ dice }) => [dice.mean, dice.low ?? dice.mean, dice.high ?? dice.mean]).map((v) => 100 * v);
  const pad = Math.max(1, 0.06 * (Math.max(...values) - Math.min(...values)));
  const low = Math.max(0, Math.min(...values) - pad), high = Math.min(100, Math.max(...values) + pad);
  const marks = ticks(low, high, 5);
  const at = (value) => `${(100 * (value - low)) / (high - low || 1)}%`;
  const grid = () => marks.map((mark) => shape("line", { class: "grid", x1: at(mark), x2: at(mark), y1: 0, y2: 36 }));

  const axis = shape("svg", { "aria-hidden": "true" });
  for (const mark of marks) axis.append(shape("text", { x: at(mark), y: 20, "text-anchor": "middle" }, String(mark)));
  const head = element("tr", {},
    element("th", { scope: "col" }, "Compared with"),
    element("th", { scope: "col", class: "number extra" }, "Labels"),
    element("th", { scope: "col", class: "number extra" }, "Images"),
    element("th", { scope: "col" }, "Dice %"),
    element("th", { class: "plot", "aria-hidden": "true" }, axis),
    element("th", { scope: "col" }, "IoU %"));

  const cell = ({ mean, low: from, high: to }) => {
    const td = element("td", {}, element("span", { class: "value" }, percent(mean, 2)));
    if (from != null) td.append(element("span", { class: "range" }, `${percent(from, 2)} to ${percent(to, 2)}`));
    return td;
  };
  const body = element("tbody");
  const published = data.scores.some((row) => row.kind === "published");
  let kind = published ? "" : "ours";
  for (const row of data.scores) {
    if (row.kind !== kind) {
      kind = row.kind;
      const heading = kind === "ours" ? "This run, with 95% intervals" : "Published, for comparison";
      body.append(element("tr", { class: "group" }, element("th", { colspan: 6, scope: "rowgroup" }, heading)));
    }
    const plot = shape("svg", { "aria-hidden": "true" });
    plot.append(...grid());
    const { mean, low: from, high: to, n } = row.dice;
    if (from != null) plot.append(shape("line", { class: "whisker", x1: at(100 * from), x2: at(100 * to), y1: 18, y2: 18 }));
    plot.append(shape("circle", { class: kind === "ours" ? "dot" : "theirs", cx: at(100 * mean), cy: 18, r: 4.5 }));
    body.append(element("tr", {},
      element("th", { scope: "row" }, row.name),
      element("td", { class: "number extra" }, String(row.labels)),
      element("td", { class: "number extra" }, n == null ? "" : String(n)),
      cell(row.dice),
      element("td", { class: "plot", "aria-hidden": "true" }, plot),
      cell(row.iou)));
  }
  $("scores").append(element("thead", {}, head), body);
  const hints = new Map();
  for (const { name, hint } of data.scores) {
    if (!hint) continue;
    const names = hints.get(hint) ?? [];
    hints.set(hint, [...names, name]);
  }
  for (const [hint, names] of hints) $("hints").append(element("p", {}, element("b", {}, names.join("; ")), ` ${hint}`));
}
scoreTable();

// ---------------------------------------------------------------- layers of an image

const TRUTH = [240, 228, 66], PREDICTION = [86, 180, 233];
const HIT = [159, 221, 176], EXTRA = [213, 94, 0], MISSED = [0, 114, 178];
// A dark-to-light ramp with even steps of lightness, so that it also reads in grey.
const RAMP = [[12, 8, 38], [66, 10, 104], [124, 29, 109], [181, 54, 90], [227, 89, 51], [249, 142, 9], [249, 203, 53], [252, 255, 164]];
const LAYERS = { image: "Image", truth: "Truth", prediction: "Prediction", errors: "Errors", entropy: "Uncertainty" };
const css = ([r, g, b]) => `rgb(${r} ${g} ${b})`;

function ramp(value) {
  const place = value * (RAMP.length - 1), i = Math.min(RAMP.length - 2, Math.floor(place)), f = place - i;
  return RAMP[i].map((c, k) => c + f * (RAMP[i + 1][k] - c));
}

async function pixels(uri, side) {
  const picture = new Image();
  picture.src = uri;
  await picture.decode();
  const width = side ?? picture.naturalWidth, height = side ?? picture.naturalHeight;
  const canvas = element("canvas", { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}

const loaded = new Map();
async function load(id) {
  if (!loaded.has(id)) {
    const { image, truth, prediction, entropy } = data.pictures[id];
    const mask = async (uri) => {
      const raw = await pixels(uri);
      return { size: raw.width, on: Uint8Array.from({ length: raw.width * raw.height }, (_, i) => (raw.data[4 * i] > 127 ? 1 : 0)) };
    };
    const first = await mask(truth);
    // Twice the pixels, so that an outline is finer than what it surrounds.
    const side = 2 * first.size;
    const [photo, unsure, second] = await Promise.all([pixels(image, side), pixels(entropy, side), mask(prediction)]);
    loaded.set(id, { side, photo, unsure, truth: first.on, prediction: second.on });
    if (loaded.size > 8) loaded.delete(loaded.keys().next().value);
  }
  return loaded.get(id);
}

function paint(canvas, parts, layer) {
  const { side, photo, unsure, truth, prediction } = parts, half = side / 2;
  canvas.width = canvas.height = side;
  const out = new ImageData(new Uint8ClampedArray(photo.data), side, side);
  const on = (mask, x, y) => mask[(y >> 1) * half + (x >> 1)];
  const put = (i, colour, alpha) => {
    for (let k = 0; k < 3; k++) out.data[4 * i + k] += alpha * (colour[k] - out.data[4 * i + k]);
  };
  const edge = (mask, x, y) =>
    !on(mask, Math.max(0, x - 2), y) || !on(mask, Math.min(side - 1, x + 2), y) ||
    !on(mask, x, Math.max(0, y - 2)) || !on(mask, x, Math.min(side - 1, y + 2));
  for (let y = 0, i = 0; y < side && layer !== "image"; y++) {
    for (let x = 0; x < side; x++, i++) {
      if (layer === "entropy") put(i, ramp(unsure.data[4 * i] / 255), 1);
      else if (layer === "errors") {
        const t = on(truth, x, y), p = on(prediction, x, y);
        const grey = 115 + 0.55 * (photo.data[4 * i] + photo.data[4 * i + 1] + photo.data[4 * i + 2]) / 3;
        put(i, [grey, grey, grey], 1);
        if (t || p) put(i, t && p ? HIT : p ? EXTRA : MISSED, 0.85);
      } else {
        const mask = layer === "truth" ? truth : prediction;
        if (on(mask, x, y)) put(i, layer === "truth" ? TRUTH : PREDICTION, edge(mask, x, y) ? 1 : 0.3);
      }
    }
  }
  canvas.getContext("2d").putImageData(out, 0, 0);
}

function legend(layers) {
  const entry = (colour, text) => {
    const swatch = element("i", { class: "swatch" });
    swatch.style.background = colour;
    return element("span", {}, swatch, text);
  };
  const entries = [];
  if (layers.includes("truth")) entries.push(entry(css(TRUTH), "truth"));
  if (layers.includes("prediction")) entries.push(entry(css(PREDICTION), "prediction"));
  if (layers.includes("errors")) entries.push(entry(css(HIT), "right"), entry(css(EXTRA), "too much"), entry(css(MISSED), "missed"));
  if (layers.includes("entropy")) {
    const scale = element("i", { class: "swatch ramp" });
    scale.style.background = `linear-gradient(to right, ${RAMP.map(css).join(",")})`;
    entries.push(element("span", {}, "certain", scale, "undecided (entropy)"));
  }
  $("legend").replaceChildren(...entries);
}

for (const [side, chosen] of [["left", "truth"], ["right", "prediction"]]) {
  for (const [value, label] of Object.entries(LAYERS)) $(side).append(element("option", { value }, label));
  $(side).value = chosen;
  $(side).addEventListener("change", () => draw());
}

function wipe() {
  const share = $("wipe").value;
  $("over").style.clipPath = `inset(0 ${100 - share}% 0 0)`;
  $("handle").style.left = `${share}%`;
}
$("wipe").addEventListener("input", wipe);
wipe();

let selected = null;
async function draw() {
  const id = selected, layers = [$("left").value, $("right").value];
  const there = id != null && Object.hasOwn(data.pictures, id);
  $("absent").hidden = there;
  $("absent").textContent = "This image is not in the report. Make it with a larger --images to see it.";
  if (!there) return;
  const parts = await load(id);
  if (id !== selected) return;
  paint($("over"), parts, layers[0]);
  paint($("under"), parts, layers[1]);
  legend(layers);
  $("stage").dataset.shown = id;
}

// ---------------------------------------------------------------- scores of each image

const NAMES = { dice_clean: "Dice", iou_clean: "IoU", dice_paper: "Dice, paper’s mask", iou_paper: "IoU, paper’s mask", dice_original: "Dice, original size", iou_original: "IoU, original size",
  aji_original: "AJI", pq_original: "PQ", dq_original: "DQ", sq_original: "SQ", f1_original: "F1", hd95_original: "HD95, px", nsd_original: "Surface Dice" };
const rows = data.images.map((image) => ({ ...image, uncertainty: data.pictures[image.id]?.meanEntropy ?? null }));
const byId = new Map(rows.map((row) => [row.id, row]));
const measures = Object.keys(rows[0]).filter((key) => key !== "uncertainty" && rows.some((row) => typeof row[key] === "number"));
const title = (key) => NAMES[key] ?? key.replaceAll("_", " ");
const main = `dice_${data.primary}`;
// The score to go by, the two others that are read most, and whatever else was measured than these.
const COLUMNS = [...new Set([main, `iou_${data.primary}`, "dice_clean", "dice_original"])]
  .filter((key) => measures.includes(key))
  .concat(measures.filter((key) => !/^(dice|iou)_/.test(key)), "uncertainty");
const inPercent = (key) => /^(dice|iou|aji|pq|dq|sq|f1|nsd)(_|$)/.test(key);
const heads = (key) =>
  ({ id: "Image", uncertainty: "Entropy", dice_clean: main === "dice_clean" ? "Dice %" : "Dice %, by area" })[key] ??
  (key === "dice_original" ? `Dice %${main === key ? "" : ", original"}` : /^iou_/.test(key) ? "IoU %" : title(key) + (inPercent(key) ? " %" : ""));
const show = (key, value) => (inPercent(key) ? percent(value) : number(value));

let order = { key: main, down: true }, visible = [];
const body = element("tbody");
const lines = new Map();

function makeTable() {
  const head = element("tr");
  for (const key of ["id", ...COLUMNS]) {
    const button = element("button", { type: "button" }, heads(key));
    button.addEventListener("click", () => {
      // Names start at A, scores at the best; a second click turns the order round.
      order = { key, down: order.key === key ? !order.down : key !== "id" };
      arrange();
    });
    head.append(element("th", { scope: "col", "data-key": key, ...(key === "id" ? {} : { class: "number" }) }, button));
  }
  for (const row of rows) {
    const picture = data.pictures[row.id]?.image;
    const thumbnail = picture ? element("img", { src: picture, alt: "" }) : element("span", { class: "blank" });
    const words = element("span", {}, element("span", { class: "id" }, row.id), element("span", { class: "text" }, row.text ?? ""));
    const button = element("button", { type: "button" }, thumbnail, words);
    const line = element("tr", { "data-id": row.id }, element("td", { class: "name" }, button));
    for (const key of COLUMNS) line.append(element("td", { class: "number" }, key === "uncertainty" ? (row[key]?.toFixed(3) ?? "–") : show(key, row[key])));
    line.addEventListener("click", () => select(row.id));
    button.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const next = visible[visible.indexOf(row.id) + step];
      if (next !== undefined) {
        select(next);
        lines.get(next).querySelector("button").focus();
      }
    });
    lines.set(row.id, line);
  }
  $("table").append(element("thead", {}, head), body);
}

function arrange() {
  const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const below = $("below").value === "" ? Infinity : Number($("below").value) / 100;
  const kept = rows.filter((row) => {
    const text = `${row.id} ${row.text ?? ""}`.toLowerCase();
    return words.every((word) => text.includes(word)) && (below === Infinity || row[main] < below);
  });
  const sign = order.down ? -1 : 1;
  kept.sort((a, b) => {
    const x = a[order.key], y = b[order.key];
    if (x == null || y == null) return (x == null) - (y == null);
    return sign * (typeof x === "string" ? x.localeCompare(y, undefined, { numeric: true }) : x - y) || a.id.localeCompare(b.id);
  });
  visible = kept.map((row) => row.id);
  body.replaceChildren(...visible.map((id) => lines.get(id)));
  for (const th of $("table").querySelectorAll("thead th")) {
    if (th.dataset.key === order.key) th.setAttribute("aria-sort", order.down ? "descending" : "ascending");
    else th.removeAttribute("aria-sort");
  }
  $("count").textContent = visible.length === rows.length ? `${rows.length} images` : `${visible.length} of ${rows.length} images`;
  page();
}

function page() {
  const place = visible.indexOf(selected);
  $("previous").disabled = place <= 0;
  $("next").disabled = place >= visible.length - 1;
}

function select(id) {
  if (selected != null) lines.get(selected).setAttribute("aria-selected", "false");
  selected = id;
  const row = byId.get(id);
  lines.get(id).setAttribute("aria-selected", "true");
  $("shown-id").textContent = id;
  $("shown-text").textContent = row.text ? row.text : "No text came with this image.";
  $("shown-scores").replaceChildren(
    ...measures.map((key) => element("div", {}, element("dt", {}, title(key)), element("dd", {}, show(key, row[key])))),
  );
  page();
  draw();
}

for (const [id, step] of [["previous", -1], ["next", 1]]) {
  $(id).addEventListener("click", () => {
    const next = visible[visible.indexOf(selected) + step];
    if (next === undefined) return;
    select(next);
    // Only the list moves, not the page under the reader.
    const line = lines.get(next), list = $("list");
    if (line.offsetTop < list.scrollTop + 40 || line.offsetTop + line.offsetHeight > list.scrollTop + list.clientHeight) {
      list.scrollTop = line.offsetTop - list.clientHeight / 2;
    }
  });
}
$("filter").addEventListener("input", arrange);
$("below").addEventListener("input", arrange);
makeTable();
arrange();
select(visible[Math.floor(visible.length / 2)]);

// ---------------------------------------------------------------- curves

function chart(name, key, format) {
  const points = data.log.filter((line) => key in line).map((line) => ({ x: line.epoch, y: line[key], lr: line.lr }));
  if (!points.length) return;
  const readout = element("output", {});
  const svg = shape("svg", { role: "img", tabindex: 0, "aria-label": `${name} by epoch; arrow keys read the values` });
  const box = element("div", { class: "chart" }, element("div", { class: "head" }, element("h3", {}, name), readout), svg);
  $("charts").append(box);
  const best = points.find((point) => point.x === data.keptEpoch);
  let at = null;

  const say = () => {
    const point = at == null ? best : points[at];
    if (!point) return "";
    return `${at == null ? "kept: " : ""}epoch ${point.x}, ${format(point.y)}`;
  };
  const render = () => {
    const width = svg.clientWidth || 480, height = svg.clientHeight || 224;
    const left = 48, right = 14, top = 14, bottom = 30;
    const ys = points.map((point) => point.y), spread = Math.max(...ys) - Math.min(...ys) || Math.abs(ys[0]) || 1;
    const low = Math.max(0, Math.min(...ys) - 0.05 * spread), high = Math.max(...ys) + 0.05 * spread;
    const first = points[0].x, last = points.at(-1).x;
    const X = (x) => left + ((x - first) / (last - first || 1)) * (width - left - right);
    const Y = (y) => height - bottom - ((y - low) / (high - low)) * (height - top - bottom);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.replaceChildren();
    for (const mark of ticks(low, high, 4)) {
      svg.append(shape("line", { class: "grid", x1: left, x2: width - right, y1: Y(mark), y2: Y(mark) }));
      svg.append(shape("text", { x: left - 8, y: Y(mark) + 4, "text-anchor": "end" }, String(mark)));
    }
    const epochs = ticks(first, last, Math.min(6, width / 70)).filter(Number.isInteger);
    for (const mark of epochs.length > 1 ? epochs : [first, last]) {
      svg.append(shape("text", { x: X(mark), y: height - 8, "text-anchor": "middle" }, String(mark)));
    }
    svg.append(shape("text", { x: left - 8, y: height - 8, "text-anchor": "end" }, "epoch"));
    svg.append(shape("path", { class: "curve", d: points.map((p, i) => `${i ? "L" : "M"}${X(p.x).toFixed(1)} ${Y(p.y).toFixed(1)}`).join("") }));
    if (best) svg.append(shape("circle", { class: "best", cx: X(best.x), cy: Y(best.y), r: 5 }));
    if (at != null) {
      const point = points[at];
      svg.append(shape("line", { class: "cursor", x1: X(point.x), x2: X(point.x), y1: top, y2: height - bottom }));
      svg.append(shape("circle", { class: "point", cx: X(point.x), cy: Y(point.y), r: 4.5 }));
    }
    readout.textContent = say();
    svg.onpointermove = (event) => {
      const x = (event.offsetX - left) / (width - left - right);
      move(Math.round(x * (points.length - 1)));
    };
  };
  const move = (to) => {
    at = to == null ? null : Math.max(0, Math.min(points.length - 1, to));
    render();
  };
  svg.addEventListener("pointerleave", () => move(null));
  svg.addEventListener("blur", () => move(null));
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    move(at == null ? (step > 0 ? 0 : points.length - 1) : at + step);
  });
  new ResizeObserver(render).observe(svg);
}
chart("Training loss", "loss", (value) => value.toFixed(4));
chart("Validation Dice", "val_dice", (value) => `${percent(value, 2)} %`);

// ---------------------------------------------------------------- training images, options

const pictured = data.training.filter((image) => image.image);
$("training-note").textContent =
  `The ${data.training.length === 1 ? "one image" : `${data.training.length} images`} that the head was fitted on` +
  (pictured.length < data.training.length ? `; the first ${pictured.length} with a picture.` : ".");
for (const { id, text, image } of data.training) {
  const item = element("li");
  if (image) item.append(element("img", { src: image, alt: "" }));
  item.append(element("b", {}, id), element("span", { title: text }, text));
  $("training").append(item);
}
for (const [id, pairs] of [["options", data.options], ["versions", data.versions]]) {
  for (const [name, value] of pairs) $(id).append(element("div", {}, element("dt", {}, name), element("dd", {}, value)));
}
$("command").textContent = data.command;
