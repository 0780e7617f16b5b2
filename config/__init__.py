"""The outermost app: settings, configuration, wiring and the embedded servers."""

from __future__ import annotations

from config.kernels import choose_folder

choose_folder()
