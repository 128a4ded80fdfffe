"""Selections of scored rows: conditions and quotas over finished outputs, and manifests of what is kept."""
