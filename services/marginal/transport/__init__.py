"""gRPC, both sides: the only importer of grpc and the generated stubs."""
