"""What gunicorn serves, `app.main:app`: one replica, as the environment describes it."""

from __future__ import annotations

import os

from app.engines.artifact import ArtifactError
from app.engines.loading import load_engine
from app.factory import create_app
from app.settings import SettingsError, read_settings

try:
    settings = read_settings(os.environ)
    app = create_app(settings, load_engine(settings.model_dir))
except (SettingsError, ArtifactError) as error:
    raise SystemExit(f"vmlops: {error}") from None
