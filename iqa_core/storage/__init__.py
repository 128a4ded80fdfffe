"""Files on any filesystem: folders, retries, leases."""
