"""The scoring job: from a manifest to part files, on Ray Data."""
