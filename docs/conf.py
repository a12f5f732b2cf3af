# Sphinx: `tox -e docs`.

import sktarget

project = "sktarget"
author = "the sktarget developers"
copyright = f"2026, {author}"
release = version = sktarget.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]
html_theme = "pydata_sphinx_theme"
html_theme_options = {"show_prev_next": False}
html_show_sourcelink = False

myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_typehints = "none"  # numpydoc states the types
numpydoc_show_class_members = False

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    # Other scripts measure for hours or print tables.
    "filename_pattern": r"/plot_",
    # Of the name alone, or of the path, as older versions of the gallery give it.
    "ignore_pattern": r"(^|/)(?!plot_)[^/]*\.py$",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
}


def skip_foreign_members(app, what, name, obj, skip, options):
    """Leave out what scikit-learn and torch define: their pages document it."""
    obj = getattr(obj, "fget", obj)
    module = getattr(obj, "__module__", None) or ""
    return skip or not module.startswith("sktarget")


def setup(app):
    app.connect("autodoc-skip-member", skip_foreign_members)
