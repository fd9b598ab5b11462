"""What the Makefile calls: the packages, the virtual environment and the machine of this clone.

Standard library only, because it runs before .venv exists; kit.py and image.py, which need .venv, are imported only by
their verbs. ``python3 -m host`` lists the verbs.
"""
