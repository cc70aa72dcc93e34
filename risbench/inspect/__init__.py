"""Read-only looks at a workspace: audit, report, statistics, one record, validation."""
