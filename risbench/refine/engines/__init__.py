"""The engines: box to mask. Each is known by an object in a module of its own."""
