"""What every stage shares: record, workspace, geometry, imagery, masks, metrics, taxonomy, errors. Imports nothing above it."""
