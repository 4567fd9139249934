"""Everything between a prompt and tokens: a client in the app, a worker process, and llama.cpp behind it."""
