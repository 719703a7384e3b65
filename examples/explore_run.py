"""A finished run explored cell by cell: the fit, the hard images, the features, the text."""

# %% [markdown]
# # Into a run, cell by cell
#
# Opens the latest run in `runs/` (`make demo` makes one) and looks at what the head sees and what it says. Run it as a
# program, or cell by cell in VS Code, PyCharm, Spyder or, through jupytext, as a notebook.

# %%
import matplotlib.pyplot as plt
import numpy as np

import textdiff

run = textdiff.open_run()
cache = run.open_cache()
scores = run.scores()
print(f"{run.path.name}: {len(run.config['train_ids'])} training images, {len(scores['images'])} scored")

# %% [markdown]
# ## How the fit went

# %%
log = run.log()
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
axes.plot([line["epoch"] for line in log], [line["loss"] for line in log])
axes.set(xlabel="epoch", ylabel="training loss")
figure.savefig("loss.png")

# %% [markdown]
# ## Which images are hard
#
# The worst image first: the one to look at.

# %%
ranked = sorted(scores["images"], key=lambda image: image["dice_clean"])
for image in ranked[:5]:
    print(f"{100 * image['dice_clean']:5.1f}  {image['id']}  {image['text'][:60]}")

# %% [markdown]
# ## What the head sees
#
# Thousands of channels, of which the three directions of most variance make a picture: colours that separate what you
# want to segment mean that a small head can learn it.

# %%
worst = ranked[0]["id"]
row = next(row for row, entry in enumerate(cache.rows) if entry.id == worst)
figure, places = plt.subplots(1, 1 + len(cache.blocks), figsize=(12, 3), layout="constrained")
places[0].imshow(cache.image(row))
places[0].set_title("image")
for place, block in zip(places[1:], cache.blocks, strict=True):
    steps, channels, height, width = (grids := cache.features(row, block)).shape
    pixels = grids.reshape(steps * channels, height * width).T.astype(np.float32)
    pixels -= pixels.mean(axis=0)
    directions = np.linalg.svd(pixels, full_matrices=False)[2][:3]
    colours = pixels @ directions.T
    low, high = np.percentile(colours, (2, 98), axis=0)
    place.imshow(((colours - low) / (high - low)).clip(0, 1).reshape(height, width, 3))
    place.set_title(f"block {block}, {steps} x {channels} channels")
for place in places:
    place.set_axis_off()
figure.savefig("features.png")

# %% [markdown]
# ## What the text does
#
# The same image with each of the data set's texts, or with its own and none if there is only one.

# %%
predictor = textdiff.Predictor(run)
texts = list(dict.fromkeys([ranked[0]["text"], *cache.texts[:3], ""]))[:3]
figure, places = plt.subplots(1, len(texts), figsize=(4 * len(texts), 4), layout="constrained", squeeze=False)
for place, text in zip(places[0], texts, strict=True):
    probabilities = predictor(cache.image(row), text)
    place.imshow(1 - probabilities[0], vmin=0, vmax=1)
    place.set_title(text[:40] or "(no text)", parse_math=False)
    place.set_axis_off()
figure.savefig("texts.png")
