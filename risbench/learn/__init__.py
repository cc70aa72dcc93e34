"""What all trainings share: devices, checkpoints, schedules and logs."""
