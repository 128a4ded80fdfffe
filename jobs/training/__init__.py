"""The training job: context vectors, on Ray Train."""
