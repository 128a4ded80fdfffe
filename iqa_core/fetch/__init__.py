"""Fetches the bytes of an image safely: policy, limits and retries."""
