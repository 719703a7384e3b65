// The table of means with their intervals, beside what is published.

function scoreTable() {
  const values = data.scores.flatMap(({ dice }) => [dice.mean, dice.low ?? dice.mean, dice.high ?? dice.mean]).filter((v) => v != null).map((v) => 100 * v);
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
    if (mean != null) plot.append(shape("circle", { class: kind === "ours" ? "dot" : "theirs", cx: at(100 * mean), cy: 18, r: row.class || row.part ? 3 : 4.5 }));
    const mark = row.class && !row.part ? [swatch(css(data.classes[row.class - 1].colour))] : [];
    const name = row.class || row.part ? element("span", { class: row.class && row.part ? "part deeper" : "part" }, ...mark, row.name) : row.name;
    body.append(element("tr", {},
      element("th", { scope: "row" }, name),
      element("td", { class: "number extra" }, String(row.labels)),
      element("td", { class: "number extra" }, n == null ? "" : String(n)),
      cell(row.dice),
      element("td", { class: "plot", "aria-hidden": "true" }, plot),
      cell(row.iou)));
  }
  $("scores").append(element("thead", {}, head), body);
  if (several) $("hints").append(element("p", {}, "Rows with a colour are single classes; the row above them is their mean."));
  const hints = new Map();
  for (const { name, hint } of data.scores) {
    if (!hint) continue;
    const names = hints.get(hint) ?? [];
    hints.set(hint, [...names, name]);
  }
  for (const [hint, names] of hints) $("hints").append(element("p", {}, element("b", {}, names.join("; ")), ` ${hint}`));
}
scoreTable();
