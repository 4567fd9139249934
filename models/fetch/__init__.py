"""What talks to the network: imported in the fetch process only, which exists while something is fetched."""
