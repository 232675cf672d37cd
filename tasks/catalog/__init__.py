"""What is where: the manifests, archives and cartridges that a profile knows."""
