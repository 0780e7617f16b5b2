"""Sources that fill a topic: a synthetic world, the demo made of it, and files."""
