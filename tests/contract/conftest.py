"""Lets the tests of the contracts import the project's own scripts, as `tools.protos`."""

import sys

from repository import ROOT

sys.path.append(str(ROOT))
