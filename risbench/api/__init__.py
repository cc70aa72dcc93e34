"""The Python API: `import risbench` shows it. Workspaces and their tables, releases for training, a function for every command."""
