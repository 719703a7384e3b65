// Whether probabilities can be trusted: accuracy against confidence, as predicted and at the temperature; the flags.

function reliabilityDiagram() {
  const { reliability } = data.trust, curves = reliability.map(({ name, error, pixels, confidence, right }, index) => {
    const total = pixels.reduce((sum, count) => sum + count, 0);
    const points = pixels.flatMap((count, i) => (count ? [{ x: confidence[i] / count, y: right[i] / count, share: count / total }] : []));
    return { name, error, points, kind: index === reliability.length - 1 ? "told" : "before" };
  });
  const least = 1 / (data.classes.length + 1);
  const svg = shape("svg", { role: "img", "aria-label": "Reliability diagram: the share of pixels that are right, by confidence" });
  const legend = element("div", { class: "legend" }, ...curves.map(({ name, error, kind }) =>
    element("span", {}, element("i", { class: `swatch ${kind}` }), `${name}: error ${percent(error, 2)} %`)));
  const box = element("div", { class: "chart reliability" }, element("div", { class: "head" }, element("h3", {}, "Right pixels by confidence, %")), svg, legend);
  $("reliability").append(box);
  const render = () => {
    const width = svg.clientWidth || 480, height = svg.clientHeight || 320, left = 44, right = 16, top = 14, bottom = 44;
    const lowest = Math.min(...curves.flatMap(({ points }) => points.map(({ y }) => y)), least);
    const X = (x) => left + ((x - least) / (1 - least)) * (width - left - right);
    const Y = (y) => height - bottom - ((y - lowest) / (1 - lowest)) * (height - top - bottom);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.replaceChildren();
    for (const mark of ticks(100 * lowest, 100, 5)) {
      svg.append(shape("line", { class: "grid", x1: left, x2: width - right, y1: Y(mark / 100), y2: Y(mark / 100) }));
      svg.append(shape("text", { x: left - 8, y: Y(mark / 100) + 4, "text-anchor": "end" }, String(mark)));
    }
    for (const mark of ticks(100 * least, 100, 5)) svg.append(shape("text", { x: X(mark / 100), y: height - bottom + 18, "text-anchor": "middle" }, String(mark)));
    svg.append(shape("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, "confidence, %"));
    svg.append(shape("line", { class: "cursor", x1: X(least), y1: Y(least), x2: X(1), y2: Y(1) }));
    for (const { name, points, kind } of curves) {
      svg.append(shape("path", { class: `curve ${kind}`, d: points.map(({ x, y }, i) => `${i ? "L" : "M"}${X(x).toFixed(1)} ${Y(y).toFixed(1)}`).join("") }));
      for (const { x, y, share } of points) {
        // The area of a dot is its share of the pixels.
        const dot = shape("circle", { class: kind, cx: X(x), cy: Y(y), r: 2.5 + 9 * Math.sqrt(share) });
        dot.append(shape("title", {}, `${name}: ${percent(share)} % of the pixels, confidence ${percent(x)} %, right ${percent(y)} %`));
        svg.append(dot);
      }
    }
  };
  new ResizeObserver(render).observe(svg);
}
if (data.trust) {
  for (const line of data.trust.lines) $("trust-lines").append(element("p", {}, line));
  reliabilityDiagram();
} else $("trust-section").hidden = true;
