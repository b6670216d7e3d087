"""Sphinx configuration. `make docs` builds the site into docs/_build; nothing is fetched at build or view time."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "Raypath"
author = "The Raypath authors"
copyright = author
version = release = installed_version("raypath")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton", "generators"]
exclude_patterns = ["_build", "images", "pictures"]

html_theme = "furo"
smartquotes = False
html_title = "Raypath"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_class_signature = "separated"
python_display_short_literal_types = True
python_maximum_signature_line_length = 88

default_role = "code"
nitpicky = True
# Types in signatures are shown by their short names, and most are not documented here.
nitpick_ignore_regex = [("py:.*", ".*")]
