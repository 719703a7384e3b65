// How the fit went.

function chart(name, key, digits, scale = 1) {
  const points = data.log.filter((line) => key in line).map((line) => ({ x: line.epoch, y: scale * line[key] }));
  if (!points.length) return;
  const readout = element("output", {});
  const svg = shape("svg", { role: "img", tabindex: 0, "aria-label": `${name} by epoch; arrow keys read the values` });
  const box = element("div", { class: "chart" }, element("div", { class: "head" }, element("h3", {}, `${name}, by epoch`), readout), svg);
  $("charts").append(box);
  const best = points.find((point) => point.x === data.keptEpoch);
  let at = null;

  const say = () => {
    const point = at == null ? best : points[at];
    if (!point) return "";
    return `${at == null ? "kept: " : ""}epoch ${point.x}, ${point.y.toFixed(digits)}`;
  };
  const render = () => {
    const width = svg.clientWidth || 480, height = svg.clientHeight || 224;
    const right = 14, top = 14, bottom = 30;
    const ys = points.map((point) => point.y), spread = Math.max(...ys) - Math.min(...ys) || Math.abs(ys[0]) || 1;
    const low = Math.max(0, Math.min(...ys) - 0.05 * spread), high = Math.max(...ys) + 0.05 * spread;
    const first = points[0].x, last = points.at(-1).x, marks = ticks(low, high, 4);
    // As wide as the longest number on the axis, which is 7 pixels a digit.
    const left = 16 + 7 * Math.max(...marks.map((mark) => String(mark).length));
    const X = (x) => left + (last === first ? 0.5 : (x - first) / (last - first)) * (width - left - right);
    const Y = (y) => height - bottom - ((y - low) / (high - low)) * (height - top - bottom);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.replaceChildren();
    for (const mark of marks) {
      svg.append(shape("line", { class: "grid", x1: left, x2: width - right, y1: Y(mark), y2: Y(mark) }));
      svg.append(shape("text", { x: left - 8, y: Y(mark) + 4, "text-anchor": "end" }, String(mark)));
    }
    const epochs = ticks(first, last, Math.min(6, width / 70)).filter(Number.isInteger);
    for (const mark of epochs.length > 1 ? epochs : new Set([first, last])) {
      svg.append(shape("text", { x: X(mark), y: height - 8, "text-anchor": "middle" }, String(mark)));
    }
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
chart("Training loss", "loss", 4);
chart("Validation Dice, %", "val_dice", 2, 100);
