"""Vigil's tests: against the real servers, embedded or named in the environment."""
