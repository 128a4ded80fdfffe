"""Self-contained HTML pages and plots."""
