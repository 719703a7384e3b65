// Everything from the data is set as text or as the source of a picture, never as markup: texts and names are untrusted.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);

// Control characters and marks that turn the direction of text are legible as escapes: names and texts are what they seem.
const legible = (text) => text.replace(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g,
  (mark) => `\\u${mark.charCodeAt(0).toString(16).padStart(4, "0")}`);

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.map((child) => (typeof child === "string" ? legible(child) : child)));
  return node;
}

const say = (id, text) => $(id).replaceChildren(legible(text));

function shape(tag, attributes = {}, text = "") {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text) node.textContent = text;
  return node;
}

const several = data.classes.length > 1;
const percent = (value, digits = 1) => (value == null ? "–" : (100 * value).toFixed(digits));
const css = ([r, g, b]) => `rgb(${r} ${g} ${b})`;
const number = (value) => (value == null ? "–" : Number(value.toPrecision(4)).toString());

function swatch(colour) {
  const node = element("i", { class: "swatch" });
  node.style.background = colour;
  return node;
}

// Round steps for an axis from `low` to `high`.
function ticks(low, high, wanted) {
  const rough = (high - low) / wanted || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= 0.7 * rough);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}
