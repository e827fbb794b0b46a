"""The fixtures and hooks of these tests."""

from cluster_fixtures import *  # noqa: F403
from cluster_fixtures import _may_be_disturbed, _quick_loop, _restarts  # noqa: F401
