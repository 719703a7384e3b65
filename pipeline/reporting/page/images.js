// The scores of each image, to sort, filter and choose from.

const NAMES = { dice_clean: "Dice", iou_clean: "IoU", dice_paper: "Dice, paper’s mask", iou_paper: "IoU, paper’s mask", dice_original: "Dice, original size", iou_original: "IoU, original size",
  aji_original: "AJI", pq_original: "PQ", dq_original: "DQ", sq_original: "SQ", f1_original: "F1", said_clean: "Labelled pixels", said_original: "Labelled pixels", hd95_original: "HD95, px", nsd_original: "Surface Dice",
  expected_dice: "Expected Dice" };
const rows = data.images.map((image) => ({ ...image, uncertainty: data.pictures[image.id]?.meanEntropy ?? null }));
const byId = new Map(rows.map((row) => [row.id, row]));
const main = `dice_${data.primary}`;
// Of each class what is read most; all of it is in scores.csv.
const ofClass = new Map((several ? data.classes : []).map(({ name }) => [`${main}_${name}`, name]));
const measures = Object.keys(rows[0]).filter((key) =>
  key !== "uncertainty" && !/^(area|pixels|said)_/.test(key.replace(`said_${data.primary}`, "")) && (ofClass.has(key) || !/^(dice|iou)_[a-z]+_/.test(key)) && rows.some((row) => typeof row[key] === "number"));
const title = (key) => NAMES[key] ?? (ofClass.has(key) ? `Dice, ${ofClass.get(key)}` : key.replaceAll("_", " "));
// The score to go by, the two others that are read most, that of each class, and whatever else was measured than these.
const COLUMNS = [...new Set([main, `iou_${data.primary}`, "dice_clean", "dice_original", ...ofClass.keys()])]
  .filter((key) => measures.includes(key))
  .concat(measures.filter((key) => !/^(dice|iou|expected)_/.test(key)), "uncertainty");
const inPercent = (key) => /^(dice|iou|aji|pq|dq|sq|f1|nsd|expected)(_|$)/.test(key);
const heads = (key) =>
  ({ id: "Image (scores in %)", uncertainty: "Entropy", dice_clean: main === "dice_clean" ? "Dice" : "Dice, by area",
    dice_original: main === "dice_original" ? "Dice" : "Dice, original" })[key] ?? (/^iou_/.test(key) ? "IoU" : title(key));
// A class that an image lacks, and that was not found there, has a score of 1 by rule only.
const show = (key, row) => {
  if (ofClass.has(key) && row[key] === 1 && row[key.replace("dice_", "area_")] === 0) return "absent";
  if (key === "expected_dice" && row.flagged) return `${percent(row[key])} (flagged)`;
  return inPercent(key) ? percent(row[key]) : number(row[key]);
};
// Where there is little room, these are in the list; all of an image's scores are below its picture.
const kind = (key) => (COLUMNS.indexOf(key) < 2 ? "number" : "number extra");

// More columns than stand beside the picture go below it.
if (COLUMNS.length > 7) document.querySelector(".explorer").classList.add("stacked");

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
    head.append(element("th", { scope: "col", "data-key": key, ...(key === "id" ? {} : { class: kind(key) }) }, button));
  }
  for (const row of rows) {
    const picture = data.pictures[row.id]?.image;
    const thumbnail = picture ? element("img", { src: picture, alt: "" }) : element("span", { class: "blank" });
    const words = element("span", {}, element("span", { class: "id", title: row.id }, row.id), element("span", { class: "text" }, row.text ?? ""));
    const button = element("button", { type: "button" }, thumbnail, words);
    const line = element("tr", { "data-id": row.id }, element("td", { class: "name" }, button));
    for (const key of COLUMNS) line.append(element("td", { class: kind(key) }, key === "uncertainty" ? (row[key]?.toFixed(3) ?? "–") : show(key, row)));
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
    const text = `${row.id} ${row.text ?? ""} ${row.flagged ? "flagged" : ""}`.toLowerCase();
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
  say("shown-id", id);
  say("shown-text", row.text ? row.text : "No text came with this image.");
  $("shown-scores").replaceChildren(
    ...measures.map((key) => element("div", {}, element("dt", {}, title(key)), element("dd", {}, show(key, row)))),
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
