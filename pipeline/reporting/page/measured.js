// What the objects measure: means with intervals, prediction beside annotation, and each image's own.

function measuredTables() {
  const { over, at, titles, means, images } = data.measured;
  const scale = (name) => (name === "share" ? 100 : 1);
  const shown = (name, value) => (value == null ? "–" : number(scale(name) * value));
  const interval = (name, line) => {
    const td = element("td", {}, element("span", { class: "value" }, shown(name, line?.mean)));
    if (line?.low != null) td.append(element("span", { class: "range" }, `${shown(name, line.low)} to ${shown(name, line.high)}`));
    return td;
  };
  const column = (text, kind = "") => element("th", { scope: "col", class: kind }, text);
  const body = element("tbody");
  for (const { name, predicted, annotated } of means) {
    body.append(element("tr", {}, element("th", { scope: "row" }, titles[name]), interval(name, predicted), interval(name, annotated)));
  }
  $("measured").append(element("thead", {}, element("tr", {}, column(`Mean over ${over}`), column("Predicted"), column("Annotated"))), body);

  const own = element("tbody"), names = Object.keys(titles);
  // Where there is little room, the first two are shown.
  const kind = (place) => (place < 2 ? "number" : "number extra");
  for (const { id, predicted, annotated } of images) {
    const cells = names.map((name, place) => element("td", { class: kind(place) }, shown(name, predicted[name]),
      element("span", { class: "range" }, shown(name, annotated[name]))));
    own.append(element("tr", {}, element("th", { scope: "row" }, id), ...cells));
  }
  const head = element("tr", {}, column("Predicted, annotated"), ...names.map((name, place) => column(titles[name], kind(place))));
  $("measured-images").append(element("thead", {}, head), own);
  const count = images.length === 1 ? "the one image shown" : `the ${images.length} images shown`;
  say("measured-note", `Objects of ${count}, whatever their class, at ${at}. ` +
    `Intervals are 95% over ${over}${over === "groups" ? ", as objects of one patient are alike" : ""}. ` +
    "Haematoxylin is by colour deconvolution of the cached picture, with stains that are not fitted to this scanner." +
    ("objects_per_mm2" in titles ? "" : " textdiff report --own-mpp 0.25 adds densities, and areas in micrometres."));
}
if (data.measured) measuredTables();
else $("measured-section").hidden = true;
