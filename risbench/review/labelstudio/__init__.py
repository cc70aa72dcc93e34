"""Everything that speaks to Label Studio: its server, client, projects, accounts and pages."""
