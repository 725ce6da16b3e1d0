"""Sphinx configuration: `make docs` builds, and treats warnings as errors."""

import configparser
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

_setup = configparser.ConfigParser()
_setup.read(ROOT / 'setup.cfg', encoding='utf-8')

project = 'simple-websocket'
copyright = 'the simple-websocket authors'
release = _setup['metadata']['version']
version = release

extensions = ['sphinx.ext.autodoc']
nitpicky = False
html_theme = 'furo'
html_title = f'simple-websocket {release}'
html_static_path = ['_static']
html_css_files = ['faults.css']
html_show_sphinx = False

# Signatures keep the defaults as they are written, without annotations: the
# types are said in the description of each parameter.
autodoc_typehints = 'none'
autodoc_preserve_defaults = True
autodoc_member_order = 'bysource'
