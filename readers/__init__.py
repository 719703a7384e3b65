"""Data sets as people have them -> samples: one module per layout.

A reader lists and matches names and texts, and opens no image: ``read(root, options) -> (samples, problems)``. What an
image or a mask holds is the business of ``load``.
"""
