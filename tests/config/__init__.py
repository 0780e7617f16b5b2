"""Configuration, settings and commands."""
