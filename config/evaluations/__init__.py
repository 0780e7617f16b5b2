"""What `manage.py evaluate` can measure: one module a kind, all through `config.offline`."""
