"""What measures and shows the proxy: the demo, its model server, load, benchmarks. Nothing here is installed."""
