"""Official releases of IQA benchmarks as manifests."""
