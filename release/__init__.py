"""Releases on the control machine: one signed file, what it holds, and whether the next one may take over."""
