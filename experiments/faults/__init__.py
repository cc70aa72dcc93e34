"""What a failing disk, a killed process, damaged files and hostile ones do to risbench; `python -m faults --help` from `experiments/`."""
