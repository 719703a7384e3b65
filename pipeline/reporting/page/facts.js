// The training images, the options, the versions.

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
say("command", data.command);
