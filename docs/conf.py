"""How Sphinx builds these pages: ``make docs``. Needs no Django, no database and no network."""  # noqa: INP001

from django_ninebits import __version__

project = "django-ninebits"
author = "django-ninebits contributors"
project_copyright = author
version = release = __version__

extensions = ["myst_parser"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

# A name in the reference that leads nowhere is a warning, and a warning ends the build. What is
# not this project's is not looked up: the build asks no other site.
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(?!django_ninebits).*")]
add_module_names = False
maximum_signature_line_length = 70
python_display_short_literal_types = True

html_theme = "furo"
html_title = f"{project} {release}"
html_copy_source = False
html_show_sourcelink = False
