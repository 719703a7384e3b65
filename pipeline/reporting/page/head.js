// The name, what the page is about, and what to know before reading the scores.

const root = document.documentElement;
$("theme").addEventListener("click", () => {
  const order = ["system", "light", "dark"];
  const next = order[(order.indexOf(root.dataset.theme ?? "system") + 1) % order.length];
  if (next === "system") delete root.dataset.theme;
  else root.dataset.theme = next;
  $("theme").textContent = `Theme: ${next}`;
});

const { facts } = data;
say("name", data.name);
say("lede",
  `${facts.images} ${data.split} image${facts.images === 1 ? "" : "s"} of ${facts.dataset || "a data set"}, ` +
  `segmented after ${facts.labels} annotated one${facts.labels === 1 ? "" : "s"} (${facts.made}).`);

for (const { level, text } of data.caveats) {
  const sign = element("span", { class: "sign", role: "img", "aria-label": level === "warning" ? "Warning" : "Note" });
  sign.textContent = level === "warning" ? "!" : "i";
  $("caveats").append(element("div", { class: `caveat ${level}` }, sign, element("span", {}, text)));
}
