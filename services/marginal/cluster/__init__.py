"""What Marginal asks of Kubernetes; the only importer of its client."""
