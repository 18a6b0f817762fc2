"""Generated from protos/marginal/v1 when the distribution is built; never committed."""
