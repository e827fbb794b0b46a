"""Runs the mesh as processes on this machine."""
