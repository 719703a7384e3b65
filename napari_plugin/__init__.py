"""A plug-in of napari: paint a little, look at what is found, correct it, and go on to the next image."""
