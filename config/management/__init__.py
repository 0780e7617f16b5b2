"""Commands of the whole: not one app's."""
