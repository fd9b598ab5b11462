"""Scoring of whole files: any size, in constant memory, on one machine or several."""
