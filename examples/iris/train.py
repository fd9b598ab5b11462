"""python examples/iris/train.py DIRECTORY: a model of a table to try, on the flowers that come with scikit-learn.

Writes what somebody who brings a model of their own has: iris.skops, a fitted pipeline, and iris.csv, its data.
"""

from __future__ import annotations

import sys
from pathlib import Path

import skops.io
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

directory = Path(sys.argv[1])
directory.mkdir(parents=True, exist_ok=True)
iris = load_iris(as_frame=True)
data = iris.data.rename(columns=lambda name: name.removesuffix(" (cm)").replace(" ", "_") + "_cm")
species = iris.target_names[iris.target]
model = make_pipeline(StandardScaler(), LogisticRegression()).fit(data, species)
skops.io.dump(model, directory / "iris.skops")
data.assign(species=species).to_csv(directory / "iris.csv", index=False)
