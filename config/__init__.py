"""The outermost app: settings, configuration, wiring and the embedded servers."""
