// One image: two layers, and a wipe between them.

const [TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE, WRONG_CLASS] = data.confusions;
// A dark-to-light ramp with even steps of lightness, so that it also reads in grey.
const RAMP = [[12, 8, 38], [66, 10, 104], [124, 29, 109], [181, 54, 90], [227, 89, 51], [249, 142, 9], [249, 203, 53], [252, 255, 164]];
// The class number of a pixel of which a mask says nothing.
const UNSAID = 255;
const LAYERS = { image: "Image", truth: "Truth", prediction: "Prediction", errors: "Errors", entropy: "Uncertainty" };

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
      // Class numbers; of one class it is there or not.
      const label = (value) => (several || data.unsaid ? value : value > 127 ? 1 : 0);
      return { size: raw.width, labels: Uint8Array.from({ length: raw.width * raw.height }, (_, i) => label(raw.data[4 * i])) };
    };
    const first = await mask(truth);
    // Twice the pixels, so that an outline is finer than what it surrounds.
    const side = 2 * first.size;
    const [photo, unsure, second] = await Promise.all([pixels(image, side), pixels(entropy, side), mask(prediction)]);
    loaded.set(id, { side, photo, unsure, truth: first.labels, prediction: second.labels });
    if (loaded.size > 8) loaded.delete(loaded.keys().next().value);
  }
  return loaded.get(id);
}

function paint(canvas, parts, layer) {
  const { side, photo, unsure, truth, prediction } = parts, half = side / 2;
  canvas.width = canvas.height = side;
  const out = new ImageData(new Uint8ClampedArray(photo.data), side, side);
  const label = (mask, x, y) => mask[(y >> 1) * half + (x >> 1)];
  const put = (i, colour, alpha) => {
    for (let k = 0; k < 3; k++) out.data[4 * i + k] += alpha * (colour[k] - out.data[4 * i + k]);
  };
  const edge = (mask, x, y, own) =>
    label(mask, Math.max(0, x - 2), y) !== own || label(mask, Math.min(side - 1, x + 2), y) !== own ||
    label(mask, x, Math.max(0, y - 2)) !== own || label(mask, x, Math.min(side - 1, y + 2)) !== own;
  for (let y = 0, i = 0; y < side && layer !== "image"; y++) {
    for (let x = 0; x < side; x++, i++) {
      if (layer === "entropy") put(i, ramp(unsure.data[4 * i] / 255), 1);
      else if (layer === "errors") {
        const t = label(truth, x, y), p = label(prediction, x, y);
        const grey = 115 + 0.55 * (photo.data[4 * i] + photo.data[4 * i + 1] + photo.data[4 * i + 2]) / 3;
        put(i, [grey, grey, grey], 1);
        if (t === UNSAID) put(i, data.unsaid.colour, data.unsaid.alpha);
        else if (t || p) put(i, (t === p ? TRUE_POSITIVE : !t ? FALSE_POSITIVE : !p ? FALSE_NEGATIVE : WRONG_CLASS).colour, 0.85);
      } else {
        const mask = parts[layer], own = label(mask, x, y);
        if (own === UNSAID) put(i, data.unsaid.colour, data.unsaid.alpha);
        else if (own) put(i, data.classes[own - 1].colour, edge(mask, x, y, own) ? 1 : 0.3);
      }
    }
  }
  canvas.getContext("2d").putImageData(out, 0, 0);
}

function legend(layers) {
  const entry = (colour, text) => element("span", {}, swatch(css(colour)), text);
  const shown = layers.some((layer) => ["truth", "prediction"].includes(layer)) ? [...data.classes] : [];
  if (layers.includes("errors")) shown.push(TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE, ...(several ? [WRONG_CLASS] : []));
  if (data.unsaid && layers.some((layer) => ["truth", "errors"].includes(layer))) shown.push(data.unsaid);
  const entries = shown.map(({ name, colour }) => entry(colour, name));
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
